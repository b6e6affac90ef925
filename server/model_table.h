// The models that requests can name.
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
  // CHECKs that models[i].index == i and that names differ.
  explicit ModelTable(std::vector<ServedModel> models);

  // An empty name means the only model. NotFound for a name that is not served,
  // InvalidArgument for an empty one where there is a choice.
  absl::StatusOr<const ServedModel*> Find(absl::string_view name) const;

  const std::vector<ServedModel>& all() const { return models_; }

 private:
  std::vector<ServedModel> models_;
  absl::flat_hash_map<absl::string_view, const ServedModel*> by_name_;
};

}  // namespace headcount
