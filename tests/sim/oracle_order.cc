// Who is computed, let in, and sent back before whom; and that it goes on.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "heads/kv_geometry.h"
#include "tests/sim/oracle.h"

namespace headcount::sim {
namespace {

// Steps that a model may wait for what its floor promises.
constexpr int kMaxStarved = 4;
// Steps in which nobody comes further than ever: computing again what
// preemption has taken.
constexpr int64_t kMaxPause = 1000;
// Steps that the oldest request of all waits.
constexpr int64_t kMaxWait = 5000;

bool HasRoom(const Record& record) {
  return std::all_of(record.blocks.begin(), record.blocks.end(),
                     [&](const std::vector<int64_t>& table) {
                       return static_cast<int64_t>(table.size()) *
                                  kBlockTokens >=
                              record.length();
                     });
}

}  // namespace

void Oracle::CheckBudget(const StepPlan& plan) {
  if (plan.parts.empty()) return;
  const ModelRecord& base = *models_[static_cast<size_t>(plan.model)];
  int32_t tokens = 0;
  int32_t decode = 0;
  int32_t rows = 0;
  for (size_t i = 0; i < planned_.size(); ++i) {
    verdict_->Expect(Of(*planned_[i]).lane == plan.model,
                     "I11 one set of weights in a step", "request ",
                     planned_[i]->id);
    tokens += plan.parts[i].num_tokens;
    rows += plan.parts[i].logits_rows;
    if (planned_[i]->decoding()) decode += plan.parts[i].num_tokens;
  }
  verdict_->Expect(tokens <= world_.scheduler.step_tokens,
                   "I11 tokens of a step", tokens);
  verdict_->Expect(rows <= base.model.max_logits_rows, "I11 rows of a step",
                   rows);
  verdict_->Expect(
      plan.decode_tokens == decode && plan.prefill_tokens == tokens - decode,
      "I15 tokens by phase", plan.decode_tokens, " decoded");
  int running = 0;
  for (const auto& model : models_) {
    if (!model || model->lane != plan.model) continue;
    running += model->running;
    const int32_t most = model->model.max_concurrent;
    verdict_->Expect(most == 0 || model->running <= most,
                     "I11 running sequences of a model", model->running);
  }
  verdict_->Expect(running <= std::min(world_.scheduler.step_tokens,
                                       base.model.max_logits_rows),
                   "I11 running sequences", running);
}

// Whoever decodes and has a block for its next token gets it in every step.
void Oracle::CheckDecoders(const StepPlan& plan) {
  if (plan.parts.empty()) return;
  for (const auto& record : live_) {
    if (!record->running || !record->decoding() || !HasRoom(*record)) continue;
    if (Of(*record).lane != plan.model) continue;
    verdict_->Expect(std::find(planned_.begin(), planned_.end(),
                               record.get()) != planned_.end(),
                     "I8 who decodes gets its token", "request ", record->id);
  }
}

void Oracle::CheckAdmissionOrder() {
  for (const Record* const admitted : admitted_) {
    for (const auto& waiting : live_) {
      if (waiting->running || waiting->model != admitted->model) continue;
      verdict_->Expect(waiting->priority <= admitted->priority,
                       "I16 the higher priority is let in first", "request ",
                       admitted->id, " before ", waiting->id);
      verdict_->Expect(waiting->tenant != admitted->tenant ||
                           waiting->priority != admitted->priority ||
                           waiting->id > admitted->id,
                       "I16 the older request of a tenant is let in first",
                       "request ", admitted->id, " before ", waiting->id);
    }
  }
}

bool Oracle::WasAdmitted(const Record* record) const {
  return std::find(admitted_.begin(), admitted_.end(), record) !=
         admitted_.end();
}

// Whether the step has tokens and rows left, and its lane a place.
bool Oracle::CanAdmit(const StepPlan& plan) const {
  if (plan.parts.empty()) return false;
  int32_t tokens = 0;
  int32_t rows = 0;
  for (const StepPart& part : plan.parts) {
    tokens += part.num_tokens;
    rows += part.logits_rows;
  }
  int running = 0;
  for (const auto& model : models_) {
    if (model && model->lane == plan.model) running += model->running;
  }
  const int32_t most_rows =
      models_[static_cast<size_t>(plan.model)]->model.max_logits_rows;
  return tokens < world_.scheduler.step_tokens && rows < most_rows &&
         running < std::min(world_.scheduler.step_tokens, most_rows);
}

void Oracle::CheckVictims(const StepPlan& plan) {
  for (const Victim& victim : victims_) {
    const Record& record = *victim.record;
    verdict_->Expect(!victim.oldest, "I9 the oldest is never preempted",
                     "request ", record.id);
    verdict_->Expect(record.preemptions <= Scheduler::kMaxPreemptions,
                     "I9 at most three preemptions", "request ", record.id);
    verdict_->Expect(!record.blocks.empty(), "I9 had no blocks to give",
                     "request ", record.id);
    const ModelRecord& its_model = Of(record);
    bool lane_could_run = false;
    bool oldest = true;
    for (const auto& other : live_) {
      const bool was_victim = std::any_of(
          victims_.begin(), victims_.end(),
          [&](const Victim& one) { return one.record == other.get(); });
      if (was_victim) oldest = false;
      if (!other->running || WasAdmitted(other.get())) continue;
      const bool spared = std::exchange(oldest, false);
      if (Of(*other).lane == its_model.lane && HasRoom(*other)) {
        lane_could_run = true;
      }
      if (spared || other->model != record.model ||
          !other->can_be_preempted()) {
        continue;
      }
      verdict_->Expect(
          other->priority > record.priority ||
              (other->priority == record.priority && other->id < record.id),
          "I9 the newest of the lowest priority goes first", "request ",
          record.id, " before ", other->id);
    }
    // Had its own lane been asked, it would have run: others took its blocks.
    const bool taken =
        !plan.parts.empty() && its_model.lane != plan.model && lane_could_run;
    verdict_->Expect(!taken || its_model.floor_slabs == 0 ||
                         its_model.lent_before > its_model.floor_slabs,
                     "I11 nobody takes what is within a floor", "request ",
                     record.id);
  }
}

bool Oracle::FitsFloor(const Record& record) const {
  const ModelRecord& its_model = *models_[static_cast<size_t>(record.model)];
  const int32_t tokens = record.to_admit();
  int64_t slabs = 0;
  for (const SchedulerGroup& group : its_model.model.groups) {
    const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    const int64_t per_slab = world_.slab_bytes / group.block_bytes;
    slabs += (blocks + per_slab - 1) / per_slab;
  }
  return slabs <= its_model.floor_slabs;
}

// Whether the model would have all of its floor if all that may be preempted
// were.
bool Oracle::FloorInReach(int model, const Record* oldest) const {
  std::map<int, std::set<int64_t>> kept;  // slabs, by model
  for (const auto& record : live_) {
    const bool may_go = record.get() != oldest && record->can_be_preempted() &&
                        !WasAdmitted(record.get());
    if (!record->running || may_go) continue;
    for (const std::vector<int64_t>& table : record->blocks) {
      for (const int64_t offset : table) {
        if (offset < 0) continue;
        kept[record->model].insert(offset / world_.slab_bytes);
      }
    }
  }
  int64_t reach = world_.slabs;
  for (int i = 0; i < num_models(); ++i) {
    const auto& other = models_[static_cast<size_t>(i)];
    if (!other || i == model) continue;
    const int64_t lent = pool_->bytes(i).lent / world_.slab_bytes;
    const auto stays =
        std::max(static_cast<int64_t>(kept[i].size()), other->floor_slabs);
    reach -= std::min(lent, stays);
  }
  return reach >= models_[static_cast<size_t>(model)]->floor_slabs;
}

// A model that runs nothing, holds no more than its floor, and whose every
// waiting request fits that floor, is let in when its turn comes and sending
// those away who borrowed makes room for it.
void Oracle::CheckFloors(const StepPlan& plan) {
  const Record* oldest = nullptr;
  for (const auto& record : live_) {
    if (oldest == nullptr && record->running) oldest = record.get();
  }
  for (size_t i = 0; i < models_.size(); ++i) {
    if (!models_[i] || models_[i]->floor_slabs == 0) continue;
    ModelRecord& model = *models_[i];
    if (model.running > 0 || model.waiting == 0) {
      model.starved = 0;
      continue;
    }
    const auto lent = [&](int id) {
      return pool_->bytes(id).lent / world_.slab_bytes;
    };
    if (model.lane != plan.model || !CanAdmit(plan)) continue;
    if (lent(static_cast<int>(i)) > model.floor_slabs) continue;
    bool fits = true;
    for (const auto& record : live_) {
      if (record->model == static_cast<int>(i)) fits &= FitsFloor(*record);
    }
    if (!fits || !FloorInReach(static_cast<int>(i), oldest)) continue;
    const bool others = std::any_of(
        admitted_.begin(), admitted_.end(), [&](const Record* admitted) {
          return admitted->model != static_cast<int>(i);
        });
    verdict_->Expect(victims_.empty() || !others,
                     "I11 what a floor takes back is for its owner", "model ",
                     i);
    ++model.starved;
    verdict_->Expect(model.starved <= kMaxStarved, "I11 a floor is there",
                     "model ", i, " waits for ", model.starved,
                     " of its steps");
  }
}

// Where one model has the pool for itself, the arithmetic is simple.
void Oracle::CheckWatermark() {
  if (admitted_.empty() || world_.models.size() != 1) return;
  const ModelRecord& model = *models_[0];
  if (model.model.groups.size() != 1 || model.running < 2) return;
  if (model.model.quota.floor_bytes > 0 ||
      model.model.quota.ceiling_bytes > 0) {
    return;
  }
  const int64_t bytes = model.model.groups[0].block_bytes;
  const int64_t total = world_.slabs * (world_.slab_bytes / bytes);
  const int64_t left = total - blocks_.used_bytes() / bytes;
  verdict_->Expect(
      static_cast<double>(left) >=
          std::ceil(world_.scheduler.watermark * static_cast<double>(total)),
      "I8 admission leaves the watermark", left, " blocks of ", total);
}

void Oracle::CheckProgress(const StepPlan& plan) {
  verdict_->Expect(plan.parts.empty() == live_.empty(),
                   "I8 with work there is a step", live_.size(), " live");
  if (live_.empty()) progressed_ = step_;
  counts_.longest_pause = std::max(counts_.longest_pause, step_ - progressed_);
  verdict_->Expect(step_ - progressed_ <= kMaxPause,
                   "I8 somebody comes further", "for ", step_ - progressed_,
                   " steps");
  const RequestId oldest = live_.empty() ? 0 : live_.front()->id;
  if (oldest != oldest_ || live_.empty() || live_.front()->running) {
    oldest_ = oldest;
    oldest_since_ = step_;
  }
  if (world_.priorities) return;  // these are strict
  counts_.longest_wait = std::max(counts_.longest_wait, step_ - oldest_since_);
  verdict_->Expect(step_ - oldest_since_ <= kMaxWait,
                   "I8 the oldest request is let in", "request ", oldest);
}

// I16: by tokens, a generated one counts twice (Sheng et al. 2024). Who is let
// in has been served no more than the other, and then gets its prompt and all
// that its running sequences may still generate.
void Oracle::CheckTenants() {
  if (world_.kind != WorldKind::kDuel) return;
  std::array<int, 2> waiting = {};
  for (const auto& record : live_) {
    if (!record->running) ++waiting[record->tenant == "a" ? 0 : 1];
  }
  tenants_.Observe(waiting[0] > 0 && waiting[1] > 0, tenant_service_[0],
                   tenant_service_[1]);
  const int32_t most_running = models_[0]->model.max_concurrent;
  const int32_t bound = world_.max_prompt * most_running +
                        2 * world_.max_generated * most_running;
  verdict_->Expect(tenants_.spread() <= 2 * bound,
                   "I16 tenants are served alike", tenants_.spread(),
                   " tokens apart, bound ", 2 * bound);
}

// Sets of weights that always have work differ by a turn each at most.
void Oracle::CheckTurns() {
  if (world_.kind != WorldKind::kAmple) return;
  std::vector<bool> live(models_.size());
  for (const auto& record : live_) {
    if (record->model >= 0) live[static_cast<size_t>(Of(*record).lane)] = true;
  }
  for (size_t a = 0; a < models_.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      turns_[a][b].Observe(live[a] && live[b], lane_service_[a],
                           lane_service_[b]);
      verdict_->Expect(turns_[a][b].spread() <= 2 * longest_turn_ + 1e-9,
                       "I16 models take turns by their share",
                       turns_[a][b].spread(), " s, bound ", 2 * longest_turn_);
    }
  }
}

}  // namespace headcount::sim
