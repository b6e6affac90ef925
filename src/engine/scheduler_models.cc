// The models of a Scheduler, and what their sequences may come to.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/scheduler.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int32_t>::max();

// The lowest index of `slots` that is empty, which there is then.
template <typename T>
int EmptySlot(std::vector<std::unique_ptr<T>>* slots) {
  const auto slot = std::find(slots->begin(), slots->end(), nullptr);
  const auto index = static_cast<int>(slot - slots->begin());
  if (slot == slots->end()) slots->emplace_back();
  return index;
}

}  // namespace

absl::StatusOr<int> Scheduler::AddModel(const SchedulerModel& model) {
  CHECK(model.max_logits_rows >= 1) << model.max_logits_rows;
  CHECK(model.share > 0) << model.share;
  std::vector<int64_t> block_bytes;
  for (const SchedulerGroup& group : model.groups) {
    block_bytes.push_back(group.block_bytes);
  }
  absl::StatusOr<PoolModel> pool = pool_->AddModel(model.quota, block_bytes);
  if (!pool.ok()) return pool.status();

  const int index = EmptySlot(&models_);
  auto added = std::make_unique<ModelState>();
  added->model = model;
  added->pool = *std::move(pool);
  added->shares_prefix = options_.prefix_cache && model.groups.size() == 1 &&
                         model.groups[0].retention.full();
  added->lane = JoinLane(index, model);
  models_[static_cast<size_t>(index)] = std::move(added);
  RefreshLimits();
  const absl::Status fit = CheckLiveFit();
  if (!fit.ok()) {
    RemoveModel(index);
    return fit;
  }
  return index;
}

int Scheduler::JoinLane(int model, const SchedulerModel& added) {
  if (added.base >= 0) {
    const int id = state(added.base).lane;
    CHECK(lane(id).models.front() == added.base)
        << "model " << added.base << " is a variant itself";
    CHECK(lane(id).max_logits_rows == added.max_logits_rows);
    lane(id).models.push_back(model);
    return id;
  }
  const int id = EmptySlot(&lanes_);
  auto alone = std::make_unique<Lane>();
  alone->models = {model};
  alone->max_logits_rows = added.max_logits_rows;
  // Every running sequence can then have a token of each step.
  alone->max_running = std::min(options_.step_tokens, added.max_logits_rows);
  alone->share = added.share;
  alone->service = device_clock_;
  lanes_[static_cast<size_t>(id)] = std::move(alone);
  return id;
}

void Scheduler::RemoveModel(int model) {
  ModelState& removed = state(model);
  Lane& its_lane = lane(removed.lane);
  CHECK(removed.running == 0 && removed.waiting.size() == 0)
      << "model " << model << " has sequences";
  CHECK(its_lane.models.front() != model || its_lane.models.size() == 1)
      << "model " << model << " has variants";
  for (const GroupId group : removed.pool.groups) cache_.Forget(group);
  pool_->RemoveModel(removed.pool);
  its_lane.models.erase(
      std::find(its_lane.models.begin(), its_lane.models.end(), model));
  if (its_lane.models.empty()) {
    lanes_[static_cast<size_t>(removed.lane)].reset();
  }
  models_[static_cast<size_t>(model)].reset();
  RefreshLimits();
}

const SequenceLimits& Scheduler::limits(int model) const {
  return state(model).limits;
}

void Scheduler::RefreshLimits() {
  for (const auto& model : models_) {
    if (model != nullptr) model->limits = LimitsOf(*model);
  }
}

SequenceLimits Scheduler::LimitsOf(const ModelState& model) const {
  SequenceLimits limits{.max_context = model.model.max_context,
                        .most_blocks = {}};
  for (const SchedulerGroup& group : model.model.groups) {
    limits.most_blocks.push_back(
        KvGeometry::MostBlocks(group.retention, options_.step_tokens));
  }
  const int64_t slabs = pool_->MostSlabs(model.pool.id);
  const auto fits = [&](int64_t entries) {
    int64_t needed = 0;
    for (size_t i = 0; i < limits.most_blocks.size(); ++i) {
      const int64_t blocks = std::min(entries, limits.most_blocks[i]);
      const int64_t per_slab =
          BlocksPerSlab(pool_->slab_bytes(), model.model.groups[i].block_bytes);
      needed += (blocks + per_slab - 1) / per_slab;
    }
    return needed <= slabs;
  };
  if (fits(kUnlimited)) {
    limits.pool_entries = kUnlimited;
    return limits;
  }
  int64_t low = 0;
  int64_t high = kUnlimited;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  limits.pool_entries = low;
  return limits;
}

absl::Status Scheduler::CheckLiveFit() const {
  for (const auto& [id, sequence] : sequences_) {
    const int64_t needed = KvGeometry::BlocksFor(sequence->max_kv_tokens);
    const int64_t available = StateOf(*sequence).limits.pool_entries;
    if (needed <= available) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "kv_cache.quota.min: beside it, another model would have ", available,
        " KV blocks, and one of its requests needs ", needed,
        "; try again when that has ended, or make the pool larger"));
  }
  return absl::OkStatus();
}

}  // namespace headcount
