#include "server/model_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "server/errors.h"

namespace headcount {

ModelTable::ModelTable(std::vector<ServedModel> served,
                       std::vector<FailedModel> failed)
    : served_(std::move(served)), failed_(std::move(failed)) {
  for (size_t i = 0; i < served_.size(); ++i) {
    CHECK(served_[i].index == static_cast<int>(i));
    CHECK(served_by_name_.emplace(served_[i].name, &served_[i]).second);
  }
  for (const FailedModel& model : failed_) {
    CHECK(!served_by_name_.contains(model.name));
    CHECK(failed_by_name_.emplace(model.name, &model).second);
  }
}

absl::StatusOr<const ServedModel*> ModelTable::Find(
    absl::string_view name) const {
  if (name.empty()) {
    const size_t configured = served_.size() + failed_.size();
    if (configured == 1 && failed_.empty()) return &served_[0];
    return FieldError("model", absl::StrCat("missing; this server has ",
                                            configured, " models"));
  }
  if (const FailedModel* failed = FindFailed(name); failed != nullptr) {
    return ModelFailedError(name, failed->error);
  }
  const auto found = served_by_name_.find(name);
  if (found == served_by_name_.end()) return UnknownModelError(name);
  return found->second;
}

const FailedModel* ModelTable::FindFailed(absl::string_view name) const {
  const auto found = failed_by_name_.find(name);
  return found == failed_by_name_.end() ? nullptr : found->second;
}

}  // namespace headcount
