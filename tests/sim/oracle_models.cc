// Models that come and go, what their requests may come to, and the sums.
#include <algorithm>

#include "heads/kv_geometry.h"
#include "tests/sim/oracle.h"
#include "tests/sim/random.h"

namespace headcount::sim {
namespace {

int64_t CeilingOf(int64_t numerator, int64_t denominator) {
  return (numerator + denominator - 1) / denominator;
}

// The most blocks that positions in a row touch, when a step computes
// `step_tokens` and the first of those sees a whole window.
int64_t MostInWindow(int32_t window, int32_t step_tokens) {
  return CeilingOf(window - 1 + step_tokens - 1, kBlockTokens) + 1;
}

}  // namespace

void Oracle::AddedModel(int index, const SchedulerModel& model) {
  const auto slot = static_cast<size_t>(index);
  size_t lowest = 0;
  while (lowest < models_.size() && models_[lowest]) ++lowest;
  if (!verdict_->Expect(slot == lowest, "I7 a model gets the lowest free index",
                        index)) {
    return;
  }
  if (slot == models_.size()) models_.emplace_back();
  ModelRecord& added = models_[slot].emplace();
  added.model = model;
  added.root = Mix(++models_added_, 17);
  added.lane = model.base >= 0 ? model.base : index;
  added.floor_slabs = CeilingOf(model.quota.floor_bytes, world_.slab_bytes);
  added.ceiling_slabs = model.quota.ceiling_bytes == 0
                            ? world_.slabs
                            : std::min(world_.slabs, model.quota.ceiling_bytes /
                                                         world_.slab_bytes);
  added.shares_prefix = world_.scheduler.prefix_cache &&
                        model.groups.size() == 1 &&
                        model.groups[0].retention.window == 0;
  lane_service_.resize(models_.size());
  lane_service_[slot] = 0;
  turns_.assign(models_.size(), std::vector<ServiceWatch>(models_.size()));
  int64_t promised = 0;
  for (const auto& one : models_) {
    if (!one) continue;
    promised += std::max(one->floor_slabs,
                         static_cast<int64_t>(one->model.groups.size()));
  }
  verdict_->Expect(promised <= world_.slabs, "I11 floors fit the pool",
                   promised, " slabs of ", world_.slabs);
}

void Oracle::RemovedModel(int index) {
  blocks_.ForgetModel(index);
  models_[static_cast<size_t>(index)].reset();
}

bool Oracle::Fits(const Request& request) const {
  const ModelRecord& its_model = *models_[static_cast<size_t>(request.model)];
  const int64_t context = its_model.model.max_context;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  int64_t most = request.sampling.max_tokens;
  for (const auto& one : request.continuations) {
    most = std::max(most, static_cast<int64_t>(one.size()));
  }
  const int64_t least =
      request.continuations.empty() ? std::min<int64_t>(most, 1) : most;
  if (prompt + least > context) return false;
  const int64_t tokens = std::max(prompt, std::min(prompt + most, context) - 1);
  int64_t slabs = 0;
  for (const SchedulerGroup& group : its_model.model.groups) {
    int64_t blocks = CeilingOf(tokens, kBlockTokens);
    if (group.retention.window > 0) {
      blocks = std::min(blocks, MostInWindow(group.retention.window,
                                             world_.scheduler.step_tokens));
    }
    slabs += CeilingOf(blocks, world_.slab_bytes / group.block_bytes);
  }
  int64_t available = world_.slabs;
  for (const auto& other : models_) {
    if (other && &*other != &its_model) available -= other->floor_slabs;
  }
  return slabs <= std::min(available, its_model.ceiling_slabs);
}

void Oracle::CheckDeeply() {
  int64_t waiting_tokens = 0;
  int64_t waiting_bytes = 0;
  for (const auto& record : live_) {
    if (!record->running) {
      waiting_tokens += record->length();
      waiting_bytes += record->bytes;
      continue;
    }
    for (size_t g = 0; g < record->blocks.size(); ++g) {
      const BlockTable& table = TableOf(*record, g);
      for (int64_t i = table.num_holes(); i < table.num_entries(); ++i) {
        const BlockRef& block = table.block(i);
        const int owners = blocks_.owners(block.offset());
        verdict_->Expect(
            block.ref_count() == owners, "I1 references are those of sequences",
            "offset ", block.offset(), ", ", block.ref_count(), " of ", owners);
        verdict_->Expect(
            owners == 1 || (i + 1) * kBlockTokens <= record->lasting(),
            "I3 who writes a block has it alone", "request ", record->id);
        verdict_->Expect(
            block.published() == blocks_.IsPublished(block.offset()),
            "I4 published is what should be", "request ", record->id,
            ", block ", i);
      }
    }
  }
  const SchedulerStats stats = scheduler_->Stats();
  verdict_->Expect(stats.waiting_tokens == waiting_tokens &&
                       stats.waiting_bytes == waiting_bytes,
                   "I15 waiting tokens and bytes", stats.waiting_tokens);
  verdict_->Expect(stats.preemptions == counts_.preemptions, "I15 preemptions",
                   stats.preemptions);
  for (size_t i = 0; i < models_.size(); ++i) {
    if (!models_[i]) continue;
    const auto& counted = stats.models[i];
    verdict_->Expect(counted.running == models_[i]->running &&
                         counted.waiting == models_[i]->waiting,
                     "I15 running and waiting", "model ", i);
    const int64_t lent = counted.pool.lent / world_.slab_bytes;
    verdict_->Expect(lent >= blocks_.UsedSlabs(static_cast<int>(i)) &&
                         lent <= models_[i]->ceiling_slabs,
                     "I11 a model stays below its ceiling", "model ", i, ", ",
                     lent, " slabs");
  }
  blocks_.CheckPublished(stats.evictions);
}

void Oracle::CheckEmpty() {
  verdict_->Expect(counts_.accepted == counts_.ended,
                   "I7 every accepted request ends", counts_.accepted, ", ",
                   counts_.ended, " ended");
  verdict_->Expect(pool_->bytes().used == 0 && blocks_.used_bytes() == 0,
                   "I14 the pool is empty at the end", pool_->bytes().used);
}

}  // namespace headcount::sim
