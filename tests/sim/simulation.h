// One seed: the real Scheduler, BlockPool and PrefixCache; a clock, a model and
// clients that are made up; and an Oracle that watches.
//
//   Simulation simulation(seed, {.steps = 2000});
//   if (!simulation.Run()) std::cerr << simulation.verdict().message();
//
// The same seed and options do the same on every machine.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/scheduler.h"
#include "tests/sim/arena.h"
#include "tests/sim/oracle.h"
#include "tests/sim/traffic.h"
#include "tests/sim/verdict.h"
#include "tests/sim/world.h"

namespace headcount::sim {

struct SimulationOptions {
  int64_t steps = 2000;  // with traffic; then until all have ended
  int num_models = 0;    // 0: as the seed has it
  // How often all blocks and sums are walked, by the oracle and by
  // CheckInvariants: every so many steps; 0: never. Everything else is checked
  // in each step.
  int64_t deep_every = 16;
  int64_t invariants_every = 128;
};

struct SimulationCounts {
  uint64_t steps = 0;
  uint64_t requests = 0;
  uint64_t tokens = 0;
  uint64_t preemptions = 0;
  uint64_t gathered = 0;
  uint64_t evictions = 0;
  uint64_t hit_blocks = 0;
  int64_t longest_pause = 0;
  int64_t longest_wait = 0;
};

class Simulation {
 public:
  Simulation(uint64_t seed, const SimulationOptions& options);

  // Whether no rule was broken.
  bool Run();

  const World& world() const { return world_; }
  const Verdict& verdict() const { return verdict_; }
  uint64_t hash() const { return hash_; }  // of all that was planned
  SimulationCounts counts() const;

 private:
  void StepOnce();
  void Compute(const StepPlan& plan);
  StepResult ComputePart(const StepPart& part, bool fails);
  StepResult Finish(const Record& record);
  Pages PagesOf(const Record& record, size_t group) const;
  void HashPlan(const StepPlan& plan);

  const SimulationOptions options_;
  const World world_;
  Verdict verdict_;
  BlockPool pool_;
  Scheduler scheduler_;
  Arena arena_;
  Oracle oracle_;
  Traffic traffic_;
  absl::Time now_ = absl::UnixEpoch();
  std::vector<StepResult> results_;
  uint64_t steps_ = 0;
  uint64_t tokens_ = 0;
  uint64_t hash_ = 0;
};

}  // namespace headcount::sim
