#include "prune/report_html.h"

#include "absl/strings/str_cat.h"
#include "prune/report_drawing.h"

namespace headcount {

std::string HtmlParagraph(const std::string& text, const std::string& kind) {
  return absl::StrCat("<p", kind.empty() ? "" : " class=\"", kind,
                      kind.empty() ? "" : "\"", ">", EscapeXml(text), "</p>\n");
}

std::string HtmlRow(const std::vector<std::string>& cells, const char* element,
                    const std::string& kind) {
  std::string row =
      kind.empty() ? "<tr>" : absl::StrCat("<tr class=\"", kind, "\">");
  for (const std::string& cell : cells) {
    absl::StrAppend(&row, "<", element, ">", EscapeXml(cell), "</", element,
                    ">");
  }
  return row + "</tr>\n";
}

}  // namespace headcount
