#include "cli/demo_mails.h"

#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/json.h"
#include "nlohmann/json.hpp"

namespace headcount {

absl::StatusOr<std::vector<DemoMail>> ReadMails(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(path + ": cannot be opened");
  std::vector<DemoMail> mails;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const std::string where = absl::StrCat(path, ":", number);
    const absl::StatusOr<nlohmann::json> json = ParseJson(line, where);
    if (!json.ok()) return json.status();
    DemoMail mail;
    const std::vector<std::pair<std::string, std::string*>> fields = {
        {"subject", &mail.subject},
        {"label", &mail.label},
        {"body", &mail.body}};
    for (const auto& [key, value] : fields) {
      if (!json->is_object() || !json->contains(key) ||
          !json->at(key).is_string()) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": has no string \"", key, "\""));
      }
      *value = json->at(key).get<std::string>();
    }
    mails.push_back(std::move(mail));
  }
  return mails;
}

}  // namespace headcount
