#include "server/model_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "server/errors.h"

namespace headcount {

ModelTable::ModelTable(std::vector<ServedModel> models)
    : models_(std::move(models)) {
  for (size_t i = 0; i < models_.size(); ++i) {
    CHECK(models_[i].index == static_cast<int>(i));
    CHECK(by_name_.emplace(models_[i].name, &models_[i]).second);
  }
}

absl::StatusOr<const ServedModel*> ModelTable::Find(
    absl::string_view name) const {
  if (name.empty()) {
    if (models_.size() == 1) return &models_[0];
    return FieldError("model", absl::StrCat("missing; this server has ",
                                            models_.size(), " models"));
  }
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return UnknownModelError(name);
  return found->second;
}

}  // namespace headcount
