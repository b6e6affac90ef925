#include "tests/sim/world.h"

#include <algorithm>

#include "tests/sim/random.h"

namespace headcount::sim {
namespace {

constexpr int64_t kSlabBytes = 2048;

WorldKind PickKind(Random* random) {
  const int pick = random->Pick(0, 99);
  if (pick < 45) return WorldKind::kMixed;
  if (pick < 60) return WorldKind::kTight;
  if (pick < 75) return WorldKind::kFloors;
  if (pick < 87) return WorldKind::kDuel;
  return WorldKind::kAmple;
}

// Sizes that fill a slab, that waste some of it, and that are one.
SchedulerGroup MakeGroup(Random* random, bool window) {
  static constexpr int kSizes[] = {128, 256, 256, 384, 640, 1024, 2048};
  return {.block_bytes = kSizes[random->Pick(0, 6)],
          .retention = {.window = window ? random->Pick(1, 80) : 0}};
}

std::vector<SchedulerGroup> MakeGroups(Random* random) {
  switch (random->Pick(0, 9)) {
    case 0:
      return {};
    case 1:
      return {MakeGroup(random, true)};
    case 2:
      return {MakeGroup(random, false), MakeGroup(random, true)};
    case 3:
      return {MakeGroup(random, false), MakeGroup(random, false)};
    default:
      return {MakeGroup(random, false)};
  }
}

SchedulerModel MakeModel(Random* random) {
  SchedulerModel model;
  model.groups = MakeGroups(random);
  model.max_context = random->Pick(40, 500);
  if (random->Chance(0.3)) model.max_concurrent = random->Pick(1, 6);
  model.max_logits_rows = random->Pick(1, 40);
  static constexpr double kShares[] = {1, 1, 1, 0.5, 2, 4};
  model.share = kShares[random->Pick(0, 5)];
  return model;
}

void AddQuotas(Random* random, World* world) {
  int64_t unpromised = world->slabs;
  for (const WorldModel& model : world->models) {
    unpromised -= static_cast<int64_t>(model.model.groups.size());
  }
  for (WorldModel& model : world->models) {
    PoolQuota& quota = model.model.quota;
    if (random->Chance(0.4) && unpromised > 0) {
      const int64_t floor =
          random->Pick(1, static_cast<int>(std::min<int64_t>(unpromised, 6)));
      unpromised -= floor;
      quota.floor_bytes = floor * kSlabBytes - random->Pick(0, 100);
    }
    if (random->Chance(0.3)) {
      quota.ceiling_bytes = quota.floor_bytes + random->Pick(2, 8) * kSlabBytes;
    }
  }
}

void MakeMixed(Random* random, int num_models, World* world) {
  for (int i = 0; i < num_models; ++i) {
    WorldModel added{.model = MakeModel(random)};
    if (i > 0 && random->Chance(0.3)) {
      const int base = random->Pick(0, i - 1);
      const SchedulerModel& of = world->models[static_cast<size_t>(base)].model;
      if (of.base < 0) {
        added.model.base = base;
        added.model.max_logits_rows = of.max_logits_rows;
        added.model.share = of.share;
      }
    }
    added.at_start = i == 0 || random->Chance(0.7);
    world->models.push_back(added);
  }
  AddQuotas(random, world);
  world->priorities = random->Chance(0.5);
  world->toggles = random->Chance(0.5) ? 0.01 : 0;
}

// Prompts are short and answers long, so that what was let in outgrows the
// pool.
void MakeTight(Random* random, World* world) {
  MakeMixed(random, 1, world);
  world->slabs = random->Pick(2, 8);
  world->arrivals = 0.9;
  world->toggles = 0;
  if (random->Chance(0.3)) return;
  world->max_prompt = random->Pick(10, 60);
  world->max_generated = random->Pick(60, 200);
  world->scheduler.watermark = 0;
  SchedulerModel& model = world->models[0].model;
  model.max_concurrent = 0;
  model.max_logits_rows = random->Pick(10, 40);
  // Two groups get in each other's way.
  if (random->Chance(0.4)) {
    model.groups = {MakeGroup(random, false), MakeGroup(random, true)};
    model.max_context = random->Pick(100, 300);
  }
}

void MakeFloors(Random* random, int num_models, World* world) {
  world->slabs = random->Pick(8, 20);
  for (int i = 0; i < std::max(2, num_models); ++i) {
    WorldModel added{.model = MakeModel(random)};
    if (added.model.groups.empty()) {
      added.model.groups = {MakeGroup(random, false)};
    }
    const bool variant = i > 0 && random->Chance(0.3);
    if (variant) {
      const SchedulerModel& base = world->models[0].model;
      added.model.base = 0;
      added.model.max_logits_rows = base.max_logits_rows;
      added.model.share = base.share;
    }
    world->models.push_back(added);
  }
  // The first has a promise that its small requests always fit.
  SchedulerModel& promised = world->models[0].model;
  promised.quota.floor_bytes = random->Pick(4, 6) * kSlabBytes;
  promised.max_context = 48;
  for (SchedulerGroup& group : promised.groups) {
    group.block_bytes = std::min<int64_t>(group.block_bytes, 640);
  }
  world->priorities = random->Chance(0.5);
  world->arrivals = 0.9;
  world->max_live = 40;
  world->max_generated = 120;
  world->scheduler.watermark = 0;
}

// Turns are by device time, and nobody is ever short of blocks.
void MakeAmple(Random* random, int num_models, World* world) {
  world->slabs = 3000;
  for (int i = 0; i < std::max(2, num_models); ++i) {
    world->models.push_back({.model = MakeModel(random)});
  }
  world->max_prompt = 60;
  world->max_generated = 40;
}

void MakeDuel(Random* random, World* world) {
  world->slabs = random->Pick(10, 40);
  SchedulerModel model = MakeModel(random);
  model.groups = {{.block_bytes = 256}};
  model.max_context = 80;
  model.max_concurrent = random->Pick(1, 3);
  model.max_logits_rows = random->Pick(3, 8);
  world->models.push_back({.model = model});
  world->max_prompt = 30;
  world->max_generated = 15;
  world->cancels = random->Chance(0.3) ? 0.01 : 0;
}

}  // namespace

const char* KindName(WorldKind kind) {
  static constexpr const char* kNames[] = {"mixed", "tight", "floors", "duel",
                                           "ample"};
  return kNames[static_cast<int>(kind)];
}

World MakeWorld(uint64_t seed, int num_models) {
  Random random(seed);
  World world;
  world.kind = PickKind(&random);
  world.slab_bytes = kSlabBytes;
  world.slabs = random.Pick(6, 24);
  world.scheduler.step_tokens = random.Pick(4, 64);
  static constexpr double kWatermarks[] = {0, 0.01, 0.1, 0.25};
  world.scheduler.watermark = kWatermarks[random.Pick(0, 3)];
  world.scheduler.prefix_cache = random.Chance(0.9);
  static constexpr double kRates[] = {0.1, 0.3, 0.6, 0.9};
  world.arrivals = kRates[random.Pick(0, 3)];
  world.max_live = random.Pick(4, 40);
  world.max_prompt = random.Chance(0.5) ? 60 : 300;
  world.max_generated = random.Chance(0.5) ? 40 : 120;
  world.cancels = random.Chance(0.7) ? 0.04 : 0;
  world.errors = random.Chance(0.5) ? 0.01 : 0;
  world.deadlines = random.Chance(0.7) ? 0.2 : 0;
  const int models = num_models > 0 ? num_models : random.Pick(1, 5);
  switch (world.kind) {
    case WorldKind::kMixed:
      MakeMixed(&random, models, &world);
      break;
    case WorldKind::kTight:
      MakeTight(&random, &world);
      break;
    case WorldKind::kFloors:
      MakeFloors(&random, models, &world);
      break;
    case WorldKind::kDuel:
      MakeDuel(&random, &world);
      break;
    case WorldKind::kAmple:
      MakeAmple(&random, models, &world);
      break;
  }
  return world;
}

}  // namespace headcount::sim
