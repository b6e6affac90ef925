// What is true at the moment of a scrape: one snapshot of the engine, so that
// the gauges agree with each other.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"
#include "prometheus/collectable.h"
#include "server/model_table.h"

namespace headcount {

enum class ServerState { kStarting, kServing, kDraining };

// The families of one snapshot. `device` is a label such as "cpu".
std::vector<prometheus::MetricFamily> SnapshotFamilies(
    const EngineSnapshot& snapshot, const ModelTable& models,
    const std::string& device, ServerState state);

// How many steps went to the device in which way.
prometheus::MetricFamily StepGraphFamily(const StepGraphs& steps);

// Thread-safe. What it points to outlives it.
class EngineCollector final : public prometheus::Collectable {
 public:
  EngineCollector(const Engine* engine, const ModelTable* models,
                  std::string device, const std::atomic<ServerState>* state)
      : engine_(engine),
        models_(models),
        device_(std::move(device)),
        state_(state) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Engine* const engine_;
  const ModelTable* const models_;
  const std::string device_;
  const std::atomic<ServerState>* const state_;
};

}  // namespace headcount
