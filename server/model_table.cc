#include "server/model_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/errors.h"

namespace headcount {

ModelTable::ModelTable(std::vector<ServedModel> served,
                       std::vector<FailedModel> failed,
                       const std::vector<LaterModel>& unloaded) {
  MutexLock lock(&mutex_);
  const auto add = [this](ModelEntry entry) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const auto position = static_cast<int>(entries_.size());
    CHECK(positions_.emplace(entry.name, position).second) << entry.name;
    entries_.push_back(std::move(entry));
  };
  for (ServedModel& model : served) {
    const std::string name = model.name;
    const auto position = static_cast<int>(entries_.size());
    add({.name = name,
         .base = model.base,
         .state = ModelState::kReady,
         .served = At(position, std::move(model)),
         .failed = nullptr});
  }
  for (FailedModel& model : failed) {
    const std::string name = model.name;
    add({.name = name,
         .base = model.base,
         .state = ModelState::kFailed,
         .served = nullptr,
         .failed = std::make_shared<const FailedModel>(std::move(model))});
  }
  for (const LaterModel& model : unloaded) {
    add({.name = model.name,
         .base = model.base,
         .served = nullptr,
         .failed = nullptr});
  }
}

std::shared_ptr<const ServedModel> ModelTable::At(int position,
                                                  ServedModel model) {
  model.position = position;
  return std::make_shared<const ServedModel>(std::move(model));
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ModelTable::Find(
    absl::string_view name) const {
  MutexLock lock(&mutex_);
  if (name.empty() && entries_.size() != 1) {
    return FieldError("model", absl::StrCat("missing; this server has ",
                                            entries_.size(), " models"));
  }
  const auto position =
      name.empty() ? positions_.begin() : positions_.find(name);
  if (position == positions_.end()) return UnknownModelError(name);
  const ModelEntry& entry = entries_[static_cast<size_t>(position->second)];
  switch (entry.state) {
    case ModelState::kReady:
      return entry.served;
    case ModelState::kFailed:
      return ModelFailedError(entry.name, entry.failed->error);
    case ModelState::kLoading:
      return ModelLoadingError(entry.name);
    case ModelState::kUnloaded:
    case ModelState::kUnloading:
      break;
  }
  return ModelNotLoadedError(entry.name);
}

std::optional<ModelEntry> ModelTable::FindEntry(absl::string_view name) const {
  const auto position = positions_.find(name);
  if (position == positions_.end()) return std::nullopt;
  MutexLock lock(&mutex_);
  return entries_[static_cast<size_t>(position->second)];
}

std::vector<ModelEntry> ModelTable::entries() const {
  MutexLock lock(&mutex_);
  return entries_;
}

std::vector<std::shared_ptr<const ServedModel>> ModelTable::served() const {
  std::vector<std::shared_ptr<const ServedModel>> models;
  MutexLock lock(&mutex_);
  for (const ModelEntry& entry : entries_) {
    if (entry.state == ModelState::kReady) models.push_back(entry.served);
  }
  return models;
}

std::vector<FailedModel> ModelTable::failed() const {
  std::vector<FailedModel> models;
  MutexLock lock(&mutex_);
  for (const ModelEntry& entry : entries_) {
    if (entry.failed != nullptr) models.push_back(*entry.failed);
  }
  return models;
}

std::vector<std::string> ModelTable::VariantsOf(absl::string_view base) const {
  std::vector<std::string> names;
  MutexLock lock(&mutex_);
  for (const ModelEntry& entry : entries_) {
    if (entry.served != nullptr && entry.served->base == base) {
      names.push_back(entry.name);
    }
  }
  return names;
}

void ModelTable::SetLoading(absl::string_view name) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = EntryOf(name);
  entry = {.name = entry.name,
           .base = entry.base,
           .state = ModelState::kLoading,
           .served = nullptr,
           .failed = nullptr};
}

void ModelTable::SetReady(ServedModel model) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = EntryOf(model.name);
  const int position = positions_.at(model.name);
  entry = {.name = entry.name,
           .base = entry.base,
           .state = ModelState::kReady,
           .served = At(position, std::move(model)),
           .failed = nullptr};
}

void ModelTable::SetFailed(FailedModel model) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = EntryOf(model.name);
  entry = {.name = entry.name,
           .base = entry.base,
           .state = ModelState::kFailed,
           .served = nullptr,
           .failed = std::make_shared<const FailedModel>(std::move(model))};
}

void ModelTable::SetUnloading(absl::string_view name) {
  MutexLock lock(&mutex_);
  EntryOf(name).state = ModelState::kUnloading;
}

void ModelTable::SetUnloaded(absl::string_view name) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = EntryOf(name);
  entry = {.name = entry.name,
           .base = entry.base,
           .served = nullptr,
           .failed = nullptr};
}

ModelEntry& ModelTable::EntryOf(absl::string_view name) {
  return entries_[static_cast<size_t>(positions_.at(name))];
}

}  // namespace headcount
