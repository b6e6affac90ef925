#include "server/model_lifecycle.h"

#include <malloc.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "server/config.h"
#include "server/errors.h"
#include "server/model_setup.h"

namespace headcount {
namespace {

std::map<std::string, config::v1::ModelSpec> SpecsByName(
    const config::v1::ServerConfig& config) {
  std::map<std::string, config::v1::ModelSpec> specs;
  for (const config::v1::ModelSpec& spec : config.models()) {
    specs[spec.name()] = spec;
  }
  return specs;
}

absl::Status StoppedError() {
  return WithReason(absl::UnavailableError("the server is shutting down"),
                    Reason::kDraining);
}

}  // namespace

ModelLifecycle::ModelLifecycle(const config::v1::ServerConfig& config,
                               Engine* engine, ModelTable* models,
                               HealthService* health, const Log* log)
    : options_(EngineOptionsOf(config)),
      specs_(SpecsByName(config)),
      engine_(engine),
      models_(models),
      health_(health),
      log_(log),
      thread_([this] { Run(); }) {}

void ModelLifecycle::Load(std::string name,
                          std::function<void(const Progress&)> progress,
                          std::function<void(absl::Status)> done) {
  progress({.stage = v1::LoadModelResponse::STAGE_WAITING});
  Post([this, name = std::move(name), progress = std::move(progress),
        done = std::move(done)](bool stopped) {
    done(stopped ? StoppedError() : LoadNow(name, progress));
  });
}

void ModelLifecycle::Unload(
    std::string name, absl::Duration deadline,
    std::function<void(absl::StatusOr<UnloadedModel>)> done) {
  Post([this, name = std::move(name), deadline,
        done = std::move(done)](bool stopped) {
    if (stopped) return done(StoppedError());
    done(UnloadNow(name, deadline));
  });
}

void ModelLifecycle::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void ModelLifecycle::Post(Errand errand) {
  {
    MutexLock lock(&mutex_);
    if (!stopped_) {
      errands_.push_back(std::move(errand));
      changed_.NotifyAll();
      return;
    }
  }
  errand(/*stopped=*/true);
}

void ModelLifecycle::Run() {
  while (true) {
    Errand errand;
    bool stopped = false;
    {
      MutexLock lock(&mutex_);
      while (errands_.empty() && !stopped_) changed_.Wait(&mutex_);
      if (errands_.empty()) return;
      errand = std::move(errands_.front());
      errands_.pop_front();
      stopped = stopped_;
    }
    errand(stopped);
  }
}

absl::Status ModelLifecycle::LoadNow(
    const std::string& name,
    const std::function<void(const Progress&)>& progress) {
  const std::optional<ModelEntry> entry = models_->FindEntry(name);
  const auto spec = specs_.find(name);
  if (!entry.has_value() || spec == specs_.end()) {
    return UnknownModelError(name);
  }
  if (entry->state == ModelState::kReady) return absl::OkStatus();
  const std::string& base = spec->second.source().variant_of();
  std::shared_ptr<const ServedModel> served;  // of the base
  if (!base.empty()) {
    absl::StatusOr<std::shared_ptr<const ServedModel>> found =
        models_->Find(base);
    if (!found.ok()) return BaseNotLoadedError(name, base);
    served = *std::move(found);
  }
  models_->SetLoading(name);
  progress({.stage = v1::LoadModelResponse::STAGE_READING});
  const auto tell_bytes = [&progress](int64_t read, int64_t total) {
    progress({.stage = v1::LoadModelResponse::STAGE_READING,
              .read_bytes = read,
              .total_bytes = total});
  };
  absl::StatusOr<LoadedModel> loaded =
      served == nullptr
          ? LoadModel(spec->second, options_, engine_->backend(), tell_bytes)
          : LoadVariant(spec->second, *engine_->model(served->index), *served);
  if (!loaded.ok()) return Fail(spec->second, loaded.status());
  progress({.stage = v1::LoadModelResponse::STAGE_JOINING});
  const absl::StatusOr<int> index =
      engine_->AddModel(std::move(loaded->engine));
  if (!index.ok()) return Fail(spec->second, index.status());
  loaded->served.index = *index;
  const absl::Duration time = loaded->served.load_time;
  models_->SetReady(std::move(loaded->served));
  health_->SetModel(name, true);
  log_->Info("model loaded",
             LogFields()
                 .Add("model", name)
                 .Add("time", absl::FormatDuration(
                                  absl::Trunc(time, absl::Milliseconds(1)))));
  return absl::OkStatus();
}

absl::Status ModelLifecycle::Fail(const config::v1::ModelSpec& spec,
                                  const absl::Status& status) {
  FailedModel failed = FailedModel::Of(spec, status);
  failed.WriteTo(*log_);
  const absl::Status error = ModelFailedError(failed.name, failed.error);
  models_->SetFailed(std::move(failed));
  return error;
}

absl::StatusOr<UnloadedModel> ModelLifecycle::UnloadNow(
    const std::string& asked, absl::Duration deadline) {
  absl::StatusOr<std::shared_ptr<const ServedModel>> model =
      models_->Find(asked);
  if (!model.ok()) return model.status();
  const std::string name = (*model)->name;
  const std::vector<std::string> variants = models_->VariantsOf(name);
  if (!variants.empty()) return HasVariantsError(name, variants);
  UnloadedModel unloaded{.weight_bytes = (*model)->description.weight_bytes()};
  const int index = (*model)->index;
  models_->SetUnloading(name);
  health_->SetModel(name, false);
  const absl::StatusOr<int> ended =
      engine_->RemoveModel(index, absl::Now() + deadline);
  CHECK(ended.ok()) << ended.status();  // all variants come by this thread
  unloaded.requests_ended = *ended;
  models_->SetUnloaded(name);
  *model = nullptr;
  // What small pieces of it leave behind in the heap goes back as well.
  malloc_trim(0);
  log_->Info("model unloaded",
             LogFields()
                 .Add("model", name)
                 .Add("requests_ended", unloaded.requests_ended));
  return unloaded;
}

}  // namespace headcount
