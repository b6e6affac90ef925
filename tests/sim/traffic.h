// Clients: what they ask, when they give up, how they read, and which models
// the operator adds and removes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/scheduler.h"
#include "tests/sim/oracle.h"
#include "tests/sim/random.h"
#include "tests/sim/world.h"

namespace headcount::sim {

class Traffic {
 public:
  Traffic(uint64_t seed, const World& world, Scheduler* scheduler,
          Oracle* oracle, Verdict* verdict);

  // Adds the models of the start.
  void Begin();
  // Moves the time on and lets clients act.
  StepEvents Next(absl::Time now);
  // Nobody comes any more; some of those who are there are sent away.
  void Drain() { draining_ = true; }

  bool StepFails() { return random_.Chance(world_.errors); }
  bool PartFails() { return random_.Chance(world_.errors / 4); }
  absl::Duration StepTime() {
    return absl::Microseconds(random_.Pick(500, 5000));
  }
  absl::Duration Pause() { return absl::Milliseconds(random_.Pick(0, 20)); }

 private:
  // Words that the prompts of a theme begin with.
  struct Beginning {
    uint64_t theme = 0;
    int words = 0;

    int32_t Word(int position) const;
  };

  void AddModel(size_t which);
  void RemoveIdleModel();
  void Toggle();
  void Arrive(absl::Time now, StepEvents* events);
  void ArriveDuel(absl::Time now, StepEvents* events);
  void Submit(Request request, StepEvents* events);
  Request MakeRequest(absl::Time now, int model);
  Beginning AddPrompt(Request* request);
  void Cancel(RequestId id, StepEvents* events);
  void Read(StepEvents* events);
  int PickModel();

  Random random_;
  const World& world_;
  Scheduler* const scheduler_;
  Oracle* const oracle_;
  Verdict* const verdict_;
  std::vector<int> index_;  // [world model] in the scheduler; -1: not there
  int leaving_ = -1;        // world model that gets no more requests
  bool draining_ = false;
  bool b_pauses_ = false;  // of a duel
  RequestId last_id_ = 0;
};

}  // namespace headcount::sim
