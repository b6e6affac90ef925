// A device that holds the launches of a step back and hands them to another as
// one graph.
//
// Graphs are kept and found again by what they launch, arguments included: a
// step whose launches are those of a graph replays it, one that differs by few
// arguments replaces these first. So there is nothing to invalidate: a buffer
// that was freed or has grown is another argument.
//
// Whatever is not a launch is done at once, behind the launches that were held
// back until then. Only Fill, Allocate and Free wait for none, as ever.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/launch_list.h"

namespace headcount::cuda {

// `device` outlives it. One thread at a time launches, copies and
// synchronises; the rest is thread-safe where it is in `device`.
class GraphDevice final : public ForwardingDevice {
 public:
  static constexpr size_t kMaxGraphs = 64;  // kept
  // Of the launches of a graph, the part whose arguments are replaced at most.
  static constexpr size_t kUpdatedPart = 4;  // a quarter
  // Graphs that could not be made, for want of memory or of a device that knows
  // them, after which no more are tried.
  static constexpr int kMaxFailures = 3;

  explicit GraphDevice(Device* device) : ForwardingDevice(device) {}

  // Between these launches are held back, or, where `hold` is not set, not.
  void BeginStep(bool hold);
  void EndStep();
  // Thread-safe.
  StepGraphs step_graphs() const;

  void Upload(const void* host, int64_t bytes, void* device) override;
  void Download(const void* device, int64_t bytes, void* host) override;
  void Zero(void* device, int64_t bytes) override;
  void Issue(const LaunchCall& call) override;
  void Synchronize() override;

 private:
  // Worse ones come later: a step that goes out in parts counts as its worst.
  enum class Way { kReplayed, kUpdated, kBuilt, kDirect };
  struct Kept {
    LaunchList launches;
    std::unique_ptr<Graph> graph;
  };

  // Hands on what is held back.
  void Flush();
  Way LaunchHeld();
  Way LaunchDirectly();
  Way Build();
  // Replaces the arguments in different_; false: it cannot.
  bool Update(Kept* kept);
  // The graph of the same shape with the fewest different arguments, if they
  // are few, first in graphs_; these are in different_ then.
  Kept* FindNearest();
  // Whether the launches held back were so before, not long ago.
  bool SeenBefore();

  bool holds_ = false;
  int failures_ = 0;
  LaunchList held_;
  Way way_ = Way::kReplayed;  // of the step
  std::list<Kept> graphs_;    // the last used first
  std::vector<size_t> different_;
  std::vector<size_t> candidate_;
  std::vector<size_t> seen_;  // hashes, in a ring
  size_t next_seen_ = 0;
  std::array<std::atomic<int64_t>, 4> steps_ = {};  // [Way]
};

}  // namespace headcount::cuda
