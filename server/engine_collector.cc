#include "server/engine_collector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grpcpp/grpcpp.h"
#include "heads/kv_geometry.h"
#include "server/family_builder.h"

namespace headcount {
namespace {

using prometheus::MetricFamily;
using Families = std::vector<MetricFamily>;

// A model that is loaded, and what the engine says of it.
struct Resident {
  std::shared_ptr<const ServedModel> served;
  EngineSnapshot::PerModel now;
};
using Residents = std::vector<Resident>;

Residents ResidentsOf(const EngineSnapshot& snapshot,
                      const ModelTable& models) {
  Residents residents;
  for (const ModelEntry& entry : models.entries()) {
    if (entry.served == nullptr) continue;
    const EngineSnapshot::PerModel* const now =
        snapshot.model(entry.served->index);
    if (now != nullptr) residents.push_back({entry.served, *now});
  }
  return residents;
}

double Flag(bool value) { return value ? 1.0 : 0.0; }

void AddServer(ServerState state, Families* families) {
  families->push_back(
      FamilyBuilder::Gauge("headcount_build_info", "Always 1; what is running.")
          .Add({{"version", HEADCOUNT_VERSION},
                {"grpc_version", grpc::Version()}},
               1)
          .Build());
  families->push_back(
      FamilyBuilder::Gauge("headcount_server_state",
                           "1 for the state that the server is in.")
          .Add({{"state", "starting"}}, Flag(state == ServerState::kStarting))
          .Add({{"state", "serving"}}, Flag(state == ServerState::kServing))
          .Add({{"state", "draining"}}, Flag(state == ServerState::kDraining))
          .Build());
}

void AddRequests(const Residents& residents, Families* families) {
  auto running =
      FamilyBuilder::Gauge("headcount_requests_running", "Sequences that run.");
  auto waiting =
      FamilyBuilder::Gauge("headcount_requests_waiting", "Requests that wait.");
  int64_t all_running = 0;
  int64_t all_waiting = 0;
  for (const Resident& resident : residents) {
    const EngineSnapshot::PerModel& model = resident.now;
    const MetricLabels labels = {{"model", resident.served->name}};
    running.Add(labels, model.running);
    waiting.Add(labels, model.waiting);
    all_running += model.running;
    all_waiting += model.waiting;
  }
  families->push_back(running.Build());
  families->push_back(waiting.Build());
  families->push_back(
      FamilyBuilder::Gauge("headcount_scheduler_requests_running",
                           "Sequences that run, over all models.")
          .Add({}, static_cast<double>(all_running))
          .Build());
  families->push_back(
      FamilyBuilder::Gauge("headcount_scheduler_requests_waiting",
                           "Requests that wait, over all models.")
          .Add({}, static_cast<double>(all_waiting))
          .Build());
}

// What each model found in the prefix cache, and lost to others.
void AddSharing(const EngineSnapshot& snapshot, const Residents& residents,
                Families* families) {
  auto preemptions =
      FamilyBuilder::Counter("headcount_preemptions_total",
                             "Running sequences put back into the queue.");
  auto looked_up = FamilyBuilder::Counter(
      "headcount_prefix_lookup_tokens_total",
      "Prompt tokens of admitted requests that may use the prefix cache.");
  auto cached = FamilyBuilder::Counter(
      "headcount_cached_prompt_tokens_total",
      "Of those, tokens found there and not computed again.");
  for (const Resident& resident : residents) {
    const EngineSnapshot::PerModel& model = resident.now;
    const MetricLabels labels = {{"model", resident.served->name}};
    preemptions.Add(labels, static_cast<double>(model.preemptions));
    looked_up.Add(labels, static_cast<double>(model.prefix_tokens));
    cached.Add(labels, static_cast<double>(model.prefix_hit_tokens));
  }
  families->push_back(preemptions.Build());
  families->push_back(looked_up.Build());
  families->push_back(cached.Build());
  families->push_back(
      FamilyBuilder::Counter("headcount_kv_block_evictions_total",
                             "Blocks that the prefix cache lost to others.")
          .Add({}, static_cast<double>(snapshot.prefix_evictions))
          .Build());
}

// Used part of what can hold blocks.
double UsageRatio(const PoolBytes& pool) {
  const int64_t usable = pool.used + pool.cached + pool.free;
  return usable == 0
             ? 0.0
             : static_cast<double>(pool.used) / static_cast<double>(usable);
}

void AddPool(const EngineSnapshot& snapshot, const std::string& device,
             Families* families) {
  const PoolBytes& pool = snapshot.pool;
  families->push_back(FamilyBuilder::Gauge("headcount_kv_pool_capacity_bytes",
                                           "Memory for KV caches.")
                          .Add({{"device", device}},
                               static_cast<double>(snapshot.pool_capacity))
                          .Build());
  auto bytes = FamilyBuilder::Gauge("headcount_kv_pool_bytes",
                                    "The pool by state; sums to its capacity.");
  for (const auto& [state, value] :
       {std::pair<const char*, int64_t>{"used", pool.used},
        {"cached", pool.cached},
        {"free", pool.free},
        {"reserved", pool.reserved}}) {
    bytes.Add({{"device", device}, {"state", state}},
              static_cast<double>(value));
  }
  families->push_back(bytes.Build());
  families->push_back(
      FamilyBuilder::Gauge("headcount_kv_pool_fragmented_bytes",
                           "Free bytes in slabs lent to a model, which no "
                           "other can have.")
          .Add({{"device", device}}, static_cast<double>(pool.fragmented))
          .Build());
  families->push_back(FamilyBuilder::Gauge("headcount_kv_pool_usage_ratio",
                                           "Used part of what can hold blocks.")
                          .Add({{"device", device}}, UsageRatio(pool))
                          .Build());
  families->push_back(
      FamilyBuilder::Gauge("headcount_scheduler_kv_usage_ratio",
                           "The highest usage ratio of any device.")
          .Add({}, UsageRatio(pool))
          .Build());
}

void AddStep(const EngineSnapshot& snapshot, Families* families) {
  const absl::Duration running =
      std::max(absl::Now() - snapshot.step_began, absl::ZeroDuration());
  families->push_back(
      FamilyBuilder::Gauge("headcount_step_running_seconds",
                           "How long the step that runs now has run; 0: none "
                           "does.")
          .Add({}, absl::ToDoubleSeconds(running))
          .Build());
}

void AddKv(const Residents& residents, const std::string& device,
           Families* families) {
  auto bytes = FamilyBuilder::Gauge("headcount_kv_bytes",
                                    "KV cache in blocks of a model.");
  auto lent = FamilyBuilder::Gauge("headcount_kv_lent_bytes",
                                   "Slabs of the pool lent to a model.");
  auto floor = FamilyBuilder::Gauge(
      "headcount_kv_floor_bytes",
      "What of the pool a model can count on (kv_cache.quota.min).");
  auto ceiling = FamilyBuilder::Gauge(
      "headcount_kv_ceiling_bytes",
      "What of the pool a model can have at most (kv_cache.quota.max).");
  auto per_token = FamilyBuilder::Gauge(
      "headcount_kv_bytes_per_token", "KV cache of one token, after pruning.");
  auto saved = FamilyBuilder::Gauge(
      "headcount_kv_saved_bytes",
      "What the resident tokens of a model would cost more without pruning.");
  int64_t block_bytes = 0;
  double token_bytes = 0;
  for (const Resident& resident : residents) {
    const EngineSnapshot::PerModel& now = resident.now;
    const v1::Model& model = resident.served->description;
    const auto kept = static_cast<double>(model.kv_bytes_per_token());
    const auto dense = static_cast<double>(model.kv_bytes_per_token_unpruned());
    const auto tokens = static_cast<double>(now.kv_tokens);
    bytes.Add({{"model", model.name()}, {"device", device}},
              static_cast<double>(now.kv.used));
    lent.Add({{"model", model.name()}, {"device", device}},
             static_cast<double>(now.kv.lent));
    floor.Add({{"model", model.name()}, {"device", device}},
              static_cast<double>(now.kv.floor));
    ceiling.Add({{"model", model.name()}, {"device", device}},
                static_cast<double>(now.kv.ceiling));
    per_token.Add({{"model", model.name()}}, kept);
    saved.Add({{"model", model.name()}}, (dense - kept) * tokens);
    block_bytes += now.kv.used;
    token_bytes += kept * tokens;
  }
  families->push_back(bytes.Build());
  families->push_back(lent.Build());
  families->push_back(floor.Build());
  families->push_back(ceiling.Build());
  families->push_back(per_token.Build());
  families->push_back(saved.Build());
  const double fragmentation =
      block_bytes == 0
          ? 0.0
          : std::max(0.0, 1.0 - token_bytes / static_cast<double>(block_bytes));
  families->push_back(
      FamilyBuilder::Gauge("headcount_kv_fragmentation_ratio",
                           "Part of the blocks in use that holds no token.")
          .Add({{"device", device}}, fragmentation)
          .Build());
}

// The blocks are those of the model whose blocks are largest, so that a router
// that counts in blocks does not expect too many.
void AddCacheInfo(const EngineSnapshot& snapshot, const ModelTable& models,
                  const std::string& device, Families* families) {
  int64_t largest = 0;
  std::string dtype;
  for (const auto& model : models.served()) {
    largest = std::max(largest, model->description.kv_block_bytes());
    const std::string& own = model->description.kv_dtype();
    dtype = dtype.empty() || dtype == own ? own : "mixed";
  }
  const int64_t blocks = largest == 0 ? 0 : snapshot.pool_capacity / largest;
  families->push_back(
      FamilyBuilder::Gauge("headcount_kv_cache_info",
                           "Always 1; blocks that the pool holds at most.")
          .Add({{"device", device},
                {"block_size", absl::StrCat(kBlockTokens)},
                {"num_gpu_blocks", absl::StrCat(blocks)},
                {"dtype", dtype}},
               1)
          .Build());
}

void AddModels(const ModelTable& models, Families* families) {
  auto info = FamilyBuilder::Gauge(
      "headcount_model_info",
      "Always 1; heads and kv_heads are those of the unpruned model, dtype is "
      "that of the KV cache, mask a digest of the pruned heads, variant_of the "
      "model whose weights it shares.");
  auto heads = FamilyBuilder::Gauge("headcount_model_heads",
                                    "Query heads that run, and those pruned.");
  auto load = FamilyBuilder::Gauge("headcount_model_load_seconds",
                                   "Time that loading the model took.");
  for (const auto& ready : models.served()) {
    const ServedModel& served = *ready;
    const v1::Model& model = served.description;
    info.Add({{"model", served.name},
              {"architecture", model.architecture()},
              {"dtype", model.kv_dtype()},
              {"layers", absl::StrCat(model.num_layers())},
              {"heads", absl::StrCat(model.query_heads_unpruned())},
              {"kv_heads", absl::StrCat(model.kv_heads_unpruned())},
              {"head_dim", absl::StrCat(model.head_dim())},
              {"mask", served.mask_digest},
              {"variant_of", served.base}},
             1);
    heads.Add({{"model", served.name}, {"state", "active"}},
              model.query_heads());
    heads.Add({{"model", served.name}, {"state", "pruned"}},
              model.query_heads_unpruned() - model.query_heads());
    load.Add({{"model", served.name}}, absl::ToDoubleSeconds(served.load_time));
  }
  families->push_back(info.Build());
  families->push_back(heads.Build());
  families->push_back(load.Build());
}

void AddModelStates(const ModelTable& models, ServerState state,
                    Families* families) {
  auto states = FamilyBuilder::Gauge("headcount_model_state",
                                     "1 for the state that a model is in.");
  const auto add = [&states](const std::string& model,
                             absl::string_view its_state) {
    for (const char* name :
         {"unloaded", "loading", "ready", "draining", "failed"}) {
      states.Add({{"model", model}, {"state", name}}, Flag(name == its_state));
    }
  };
  for (const ModelEntry& model : models.entries()) {
    switch (model.state) {
      case ModelState::kUnloaded:
        add(model.name, "unloaded");
        break;
      case ModelState::kLoading:
        add(model.name, "loading");
        break;
      case ModelState::kReady:
        add(model.name, state == ServerState::kDraining ? "draining" : "ready");
        break;
      case ModelState::kUnloading:
        add(model.name, "draining");
        break;
      case ModelState::kFailed:
        add(model.name, "failed");
        break;
    }
  }
  families->push_back(states.Build());
}

}  // namespace

Families SnapshotFamilies(const EngineSnapshot& snapshot,
                          const ModelTable& models, const std::string& device,
                          ServerState state) {
  const Residents residents = ResidentsOf(snapshot, models);
  Families families;
  AddServer(state, &families);
  AddRequests(residents, &families);
  AddSharing(snapshot, residents, &families);
  AddStep(snapshot, &families);
  AddPool(snapshot, device, &families);
  AddKv(residents, device, &families);
  AddCacheInfo(snapshot, models, device, &families);
  AddModels(models, &families);
  AddModelStates(models, state, &families);
  return families;
}

MetricFamily StepGraphFamily(const StepGraphs& steps) {
  const auto count = [](int64_t value) { return static_cast<double>(value); };
  return FamilyBuilder::Counter("headcount_step_graphs_total",
                                "Steps by how they went to the device.")
      .Add({{"result", "replayed"}}, count(steps.replayed))
      .Add({{"result", "updated"}}, count(steps.updated))
      .Add({{"result", "built"}}, count(steps.built))
      .Add({{"result", "direct"}}, count(steps.direct))
      .Build();
}

Families EngineCollector::Collect() const {
  Families families =
      SnapshotFamilies(engine_->Snapshot(), *models_, device_, *state_);
  if (const Backend* const backend = engine_->backend()) {
    families.push_back(
        FamilyBuilder::Gauge("headcount_device_free_bytes",
                             "Memory of the device that nobody has taken.")
            .Add({{"device", device_}},
                 static_cast<double>(backend->FreeBytes()))
            .Build());
    families.push_back(StepGraphFamily(backend->step_graphs()));
  }
  return families;
}

}  // namespace headcount
