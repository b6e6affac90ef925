#include "tests/sim/simulation.h"

#include <algorithm>

#include "heads/kv_geometry.h"
#include "tests/sim/random.h"

namespace headcount::sim {
namespace {

// After the traffic: all that is there ends in far fewer.
constexpr int64_t kMaxDrainSteps = 200000;

int32_t FirstSeen(int32_t position, int32_t window) {
  return window == 0 ? 0 : std::max(0, position + 1 - window);
}

}  // namespace

Simulation::Simulation(uint64_t seed, const SimulationOptions& options)
    : options_(options),
      world_(MakeWorld(seed, options.num_models)),
      pool_({.capacity_bytes = world_.slabs * world_.slab_bytes,
             .slab_bytes = world_.slab_bytes}),
      scheduler_(world_.scheduler, &pool_),
      arena_(world_.slabs * world_.slab_bytes, &verdict_),
      oracle_(world_, &scheduler_, &pool_, &verdict_),
      traffic_(seed, world_, &scheduler_, &oracle_, &verdict_) {
  traffic_.Begin();
}

bool Simulation::Run() {
  for (int64_t i = 0; i < options_.steps && !verdict_.broken(); ++i) {
    StepOnce();
  }
  traffic_.Drain();
  for (int64_t i = 0; !scheduler_.idle() && !verdict_.broken(); ++i) {
    verdict_.Expect(i < kMaxDrainSteps, "I8 all that was accepted ends",
                    oracle_.live().size(), " live");
    StepOnce();
  }
  if (verdict_.broken()) return false;
  oracle_.CheckDeeply();
  oracle_.CheckEmpty();
  if (options_.invariants_every > 0) scheduler_.CheckInvariants();
  return !verdict_.broken();
}

void Simulation::StepOnce() {
  now_ += traffic_.Pause();
  StepEvents events = traffic_.Next(now_);
  const std::vector<EndedRequest> asked = events.ends;
  oracle_.BeforeStep();
  const StepPlan plan = scheduler_.Step(now_, std::move(events));
  ++steps_;
  oracle_.AfterStep(now_, plan, asked);
  if (verdict_.broken()) return;
  Compute(plan);
  HashPlan(plan);
  if (verdict_.broken()) return;
  const absl::Duration duration = traffic_.StepTime();
  scheduler_.Commit(plan, results_, duration);
  oracle_.AfterCommit(plan, results_, duration);
  if (verdict_.broken()) return;
  const auto step = static_cast<int64_t>(steps_);
  if (options_.deep_every > 0 && step % options_.deep_every == 0) {
    oracle_.CheckDeeply();
  }
  if (verdict_.broken()) return;
  if (options_.invariants_every > 0 && step % options_.invariants_every == 0) {
    scheduler_.CheckInvariants();
  }
}

void Simulation::Compute(const StepPlan& plan) {
  results_.clear();
  const bool all_fail = traffic_.StepFails();
  for (const StepPart& part : plan.parts) {
    tokens_ += static_cast<uint64_t>(part.num_tokens);
    results_.push_back(ComputePart(part, all_fail || traffic_.PartFails()));
    if (verdict_.broken()) return;
  }
}

Pages Simulation::PagesOf(const Record& record, size_t group) const {
  const auto& model = oracle_.model(record.model);
  return {.offsets = record.sequence->tables[group].offsets(),
          .block_bytes = model->model.groups[group].block_bytes,
          .group = group};
}

// Reads all that the tokens attend to, and writes their own places; a step that
// fails leaves what nobody may read.
StepResult Simulation::ComputePart(const StepPart& part, bool fails) {
  Record* const record = oracle_.Find(part.sequence->id);
  const int32_t begin = record->computed;
  const int32_t end = begin + part.num_tokens;
  const auto& groups = oracle_.model(record->model)->model.groups;
  const std::vector<uint64_t> garbage(
      fails ? record->content.size() : size_t{0}, steps_);
  for (size_t g = 0; g < groups.size(); ++g) {
    const Pages pages = PagesOf(*record, g);
    arena_.Read(pages, record->content,
                FirstSeen(begin, groups[g].retention.window), begin);
    arena_.Write(pages, fails ? garbage : record->content, begin, end);
  }
  if (fails) return {.end = EndCause::kError};
  if (verdict_.broken() || end < record->length()) return {};
  return Finish(*record);
}

// All tokens are computed: draws the next one, or goes on with a continuation.
StepResult Simulation::Finish(const Record& record) {
  StepResult result;
  if (record.scores()) {
    size_t next = record.continuation;
    do {
      ++next;
    } while (next < record.continuations.size() &&
             record.continuations[next].size() < 2);
    if (next < record.continuations.size()) {
      result.continuation = next;
    } else {
      result.end = EndCause::kLength;
    }
    return result;
  }
  if (record.length() < record.max_length) {
    const int32_t last = record.length() - 1;
    result.token = Oracle::NextToken(record.blocks.empty()
                                         ? record.content.back()
                                         : arena_.At(PagesOf(record, 0), last));
  }
  const int32_t generated = record.generated + (result.token ? 1 : 0);
  if (generated > 0 && generated == record.wish.stop_after) {
    result.end = EndCause::kStop;
  } else if (record.prompt_tokens + generated == record.max_length) {
    result.end = EndCause::kLength;
  }
  return result;
}

void Simulation::HashPlan(const StepPlan& plan) {
  hash_ = Mix(hash_, static_cast<uint64_t>(plan.model));
  for (const StepPart& part : plan.parts) {
    hash_ = Mix(hash_, part.sequence->id);
    hash_ = Mix(hash_, static_cast<uint64_t>(part.num_tokens));
    for (const BlockTable& table : part.sequence->tables) {
      if (table.num_blocks() == 0) continue;
      hash_ = Mix(hash_, static_cast<uint64_t>(table.offsets().back()));
    }
  }
  for (const EndedRequest& ended : plan.ended) hash_ = Mix(hash_, ended.id);
}

SimulationCounts Simulation::counts() const {
  const OracleCounts& seen = oracle_.counts();
  return {.steps = steps_,
          .requests = seen.accepted,
          .tokens = tokens_,
          .preemptions = seen.preemptions,
          .gathered = seen.gathered,
          .evictions = scheduler_.Stats().evictions,
          .hit_blocks = seen.hit_blocks,
          .longest_pause = seen.longest_pause,
          .longest_wait = seen.longest_wait};
}

}  // namespace headcount::sim
