// What a seed stands for: a pool, models and the kind of traffic.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/scheduler.h"

namespace headcount::sim {

enum class WorldKind {
  kMixed,   // everything at once
  kTight,   // one model, and a pool for a few of its sequences
  kFloors,  // some flood the pool, others have a floor and little to do
  kDuel,    // two tenants that always want more, one of whom pauses
  kAmple,   // memory for all, so that only turns decide
};
const char* KindName(WorldKind kind);

struct WorldModel {
  SchedulerModel model;  // base: index in World::models
  bool at_start = true;  // others come later
};

struct World {
  WorldKind kind = WorldKind::kMixed;
  int64_t slabs = 0;
  int64_t slab_bytes = 0;
  SchedulerOptions scheduler;
  std::vector<WorldModel> models;

  double arrivals = 0;  // chance of one more, each step
  int max_live = 0;     // requests, but for bursts
  int max_prompt = 0;
  int max_generated = 0;
  bool priorities = false;
  double cancels = 0;    // chances, each step
  double toggles = 0;    // a model comes or goes
  double errors = 0;     // the step fails, or one of its parts
  double deadlines = 0;  // of a request
};

// `num_models` > 0 replaces the seed's own choice where the kind has one.
World MakeWorld(uint64_t seed, int num_models);

}  // namespace headcount::sim
