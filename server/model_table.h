// The models that requests can name: all that are configured, whatever has
// become of them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "server/model_setup.h"

namespace headcount {

enum class ModelState { kUnloaded, kLoading, kReady, kUnloading, kFailed };

struct ModelEntry {
  std::string name;
  std::string base = {};  // whose variant it is; empty: it has weights
  ModelState state = ModelState::kUnloaded;
  std::shared_ptr<const ServedModel> served;  // ready or unloading
  std::shared_ptr<const FailedModel> failed;  // if it is
};

// Thread-safe. Names and their order never change. Who holds a ServedModel may
// use it even when the model has been unloaded.
class ModelTable {
 public:
  // Entries in this order: served ones, failed ones, those to be loaded later.
  // CHECKs that names differ.
  explicit ModelTable(std::vector<ServedModel> served,
                      std::vector<FailedModel> failed = {},
                      const std::vector<LaterModel>& unloaded = {});

  // An empty name means the only configured model. NotFound for a name that is
  // not configured, InvalidArgument for an empty name where there is a choice,
  // FailedPrecondition for a model that did not load or is not loaded,
  // Unavailable for one that is being loaded.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Find(
      absl::string_view name) const;
  // Nothing for a name that is not configured.
  std::optional<ModelEntry> FindEntry(absl::string_view name) const;
  std::vector<ModelEntry> entries() const;
  // All that are ready; all that failed.
  std::vector<std::shared_ptr<const ServedModel>> served() const;
  std::vector<FailedModel> failed() const;
  // Names of those that share the weights of `base` now, or are still leaving.
  std::vector<std::string> VariantsOf(absl::string_view base) const;

  // Each CHECKs that the model is configured.
  void SetLoading(absl::string_view name);
  void SetReady(ServedModel model);
  void SetFailed(FailedModel model);
  void SetUnloading(absl::string_view name);
  void SetUnloaded(absl::string_view name);

 private:
  ModelEntry& EntryOf(absl::string_view name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static std::shared_ptr<const ServedModel> At(int position, ServedModel model);

  absl::flat_hash_map<std::string, int> positions_;  // never changes
  mutable Mutex mutex_;
  std::vector<ModelEntry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace headcount
