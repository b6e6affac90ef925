// Pieces of the page that shows a pruning run.
#pragma once

#include <string>
#include <vector>

namespace headcount {

// Text from outside is escaped; `kind`: a class of the page's style, or empty.
std::string HtmlParagraph(const std::string& text,
                          const std::string& kind = "");
// `element`: "td" or "th".
std::string HtmlRow(const std::vector<std::string>& cells, const char* element,
                    const std::string& kind = "");

}  // namespace headcount
