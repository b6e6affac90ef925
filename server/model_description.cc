#include "server/model_description.h"

#include <algorithm>

#include "heads/kv_geometry.h"

namespace headcount {
namespace {

v1::Model::State StateOf(ModelState state, bool draining) {
  switch (state) {
    case ModelState::kUnloaded:
      return v1::Model::STATE_UNLOADED;
    case ModelState::kLoading:
      return v1::Model::STATE_LOADING;
    case ModelState::kUnloading:
      return v1::Model::STATE_UNLOADING;
    case ModelState::kFailed:
      return v1::Model::STATE_FAILED;
    case ModelState::kReady:
      break;
  }
  return draining ? v1::Model::STATE_DRAINING : v1::Model::STATE_READY;
}

// Nothing where the snapshot is older than the model.
EngineSnapshot::PerModel Now(const ModelEntry& entry,
                             const EngineSnapshot& snapshot) {
  const EngineSnapshot::PerModel* const now =
      snapshot.model(entry.served->index);
  return now == nullptr ? EngineSnapshot::PerModel{} : *now;
}

}  // namespace

v1::Model DescribeModel(const ModelEntry& entry, const EngineSnapshot& snapshot,
                        bool draining) {
  v1::Model description;
  if (entry.served != nullptr) {
    description = entry.served->description;
    const EngineSnapshot::PerModel now = Now(entry, snapshot);
    description.set_kv_bytes_used(now.kv.used);
    description.set_requests_running(now.running);
    description.set_requests_waiting(now.waiting);
  }
  description.set_name(entry.name);
  description.set_variant_of(entry.base);
  description.set_state(StateOf(entry.state, draining));
  if (entry.failed != nullptr) description.set_error(entry.failed->error);
  return description;
}

v1::Pool DescribePool(const std::vector<ModelEntry>& models,
                      const EngineSnapshot& snapshot) {
  v1::Pool pool;
  pool.set_capacity_bytes(snapshot.pool_capacity);
  pool.set_used_bytes(snapshot.pool.used);
  pool.set_cached_bytes(snapshot.pool.cached);
  pool.set_free_bytes(snapshot.pool.free);
  pool.set_reserved_bytes(snapshot.pool.reserved);
  pool.set_fragmented_bytes(snapshot.pool.fragmented);
  pool.set_slab_bytes(SlabBytes(snapshot.pool_capacity));
  pool.set_queued_tokens(snapshot.queued_tokens);
  pool.set_queued_bytes(snapshot.queued_bytes);
  pool.set_tokens_per_second(snapshot.tokens_per_second);
  for (const ModelEntry& entry : models) {
    if (entry.served == nullptr) continue;
    const EngineSnapshot::PerModel now = Now(entry, snapshot);
    v1::PoolModel& model = *pool.add_models();
    model.set_name(entry.name);
    model.set_variant_of(entry.served->base);
    model.set_used_bytes(now.kv.used);
    model.set_cached_bytes(now.kv.cached);
    model.set_lent_bytes(now.kv.lent);
    model.set_floor_bytes(now.kv.floor);
    model.set_ceiling_bytes(now.kv.ceiling);
    model.set_requests_running(now.running);
    model.set_requests_waiting(now.waiting);
    model.set_prefix_tokens(static_cast<int64_t>(now.prefix_tokens));
    model.set_prefix_hit_tokens(static_cast<int64_t>(now.prefix_hit_tokens));
    model.set_preemptions(static_cast<int64_t>(now.preemptions));
  }
  std::sort(pool.mutable_models()->begin(), pool.mutable_models()->end(),
            [](const v1::PoolModel& a, const v1::PoolModel& b) {
              return a.name() < b.name();
            });
  return pool;
}

}  // namespace headcount
