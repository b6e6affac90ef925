// The models that requests can name: those that are served, and those that did
// not load.
#pragma once

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model_setup.h"

namespace headcount {

// Immutable, thread-safe.
class ModelTable {
 public:
  // CHECKs that served[i].index == i and that names differ.
  explicit ModelTable(std::vector<ServedModel> served,
                      std::vector<FailedModel> failed = {});

  // An empty name means the only configured model. NotFound for a name that is
  // not configured, FailedPrecondition for a model that did not load,
  // InvalidArgument for an empty name where there is a choice.
  absl::StatusOr<const ServedModel*> Find(absl::string_view name) const;
  // Null unless the model of that name did not load.
  const FailedModel* FindFailed(absl::string_view name) const;

  const std::vector<ServedModel>& served() const { return served_; }
  const std::vector<FailedModel>& failed() const { return failed_; }

 private:
  std::vector<ServedModel> served_;
  std::vector<FailedModel> failed_;
  absl::flat_hash_map<absl::string_view, const ServedModel*> served_by_name_;
  absl::flat_hash_map<absl::string_view, const FailedModel*> failed_by_name_;
};

}  // namespace headcount
