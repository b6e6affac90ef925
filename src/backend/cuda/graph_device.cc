#include "backend/cuda/graph_device.h"

#include <algorithm>
#include <utility>

namespace headcount::cuda {

void GraphDevice::BeginStep(bool hold) {
  Flush();
  holds_ = hold && failures_ < kMaxFailures;
  way_ = holds_ ? Way::kReplayed : Way::kDirect;
}

void GraphDevice::EndStep() {
  Flush();
  holds_ = false;
  ++steps_[static_cast<size_t>(way_)];
}

StepGraphs GraphDevice::step_graphs() const {
  const auto count = [&](Way way) {
    return steps_[static_cast<size_t>(way)].load();
  };
  return {.replayed = count(Way::kReplayed),
          .updated = count(Way::kUpdated),
          .built = count(Way::kBuilt),
          .direct = count(Way::kDirect)};
}

void GraphDevice::Upload(const void* host, int64_t bytes, void* device) {
  Flush();
  device_.Upload(host, bytes, device);
}

void GraphDevice::Download(const void* device, int64_t bytes, void* host) {
  Flush();
  device_.Download(device, bytes, host);
}

void GraphDevice::Zero(void* device, int64_t bytes) {
  if (bytes == 0) return;  // a graph has no such node
  if (!holds_) return device_.Zero(device, bytes);
  const ZeroParams params{.device = device, .bytes = bytes};
  held_.Add({.params = &params, .params_bytes = sizeof(params)});
}

void GraphDevice::Issue(const LaunchCall& call) {
  if (!holds_) return device_.Issue(call);
  held_.Add(call);
}

void GraphDevice::Synchronize() {
  Flush();
  device_.Synchronize();
}

void GraphDevice::Flush() {
  if (held_.empty()) return;
  const Range range(&device_, "graph");
  way_ = std::max(way_, LaunchHeld());
  held_.Clear();
}

GraphDevice::Way GraphDevice::LaunchHeld() {
  Kept* const kept = FindNearest();
  if (kept != nullptr && different_.empty()) {
    kept->graph->Launch();
    return Way::kReplayed;
  }
  // What comes again gets a graph of its own. What comes for the first time may
  // never do so, and making a graph costs more than these launches.
  if (SeenBefore()) return Build();
  if (kept == nullptr) return LaunchDirectly();
  if (!Update(kept)) {
    graphs_.pop_front();
    return LaunchDirectly();
  }
  kept->graph->Launch();
  return Way::kUpdated;
}

GraphDevice::Way GraphDevice::LaunchDirectly() {
  for (size_t i = 0; i < held_.size(); ++i) {
    const LaunchCall call = held_.at(i);
    if (call.kernel != nullptr) {
      device_.Issue(call);
      continue;
    }
    const auto& zero = *static_cast<const ZeroParams*>(call.params);
    device_.Zero(zero.device, zero.bytes);
  }
  return Way::kDirect;
}

GraphDevice::Way GraphDevice::Build() {
  std::unique_ptr<Graph> graph = device_.MakeGraph(held_.calls());
  if (graph == nullptr) {
    ++failures_;
    return LaunchDirectly();
  }
  if (graphs_.size() == kMaxGraphs) graphs_.pop_back();
  graphs_.push_front({held_, std::move(graph)});
  graphs_.front().graph->Launch();
  return Way::kBuilt;
}

bool GraphDevice::Update(Kept* kept) {
  for (const size_t i : different_) {
    if (!kept->graph->SetParams(i, held_.at(i))) return false;
  }
  kept->launches.CopyParams(held_);
  return true;
}

GraphDevice::Kept* GraphDevice::FindNearest() {
  size_t most = held_.size() / kUpdatedPart;
  auto nearest = graphs_.end();
  for (auto kept = graphs_.begin(); kept != graphs_.end(); ++kept) {
    if (!kept->launches.SameShape(held_)) continue;
    kept->launches.FindDifferent(held_, most, &candidate_);
    if (candidate_.size() > most) continue;
    nearest = kept;
    std::swap(different_, candidate_);
    if (different_.empty()) break;
    most = different_.size() - 1;
  }
  if (nearest == graphs_.end()) return nullptr;
  graphs_.splice(graphs_.begin(), graphs_, nearest);
  return &graphs_.front();
}

bool GraphDevice::SeenBefore() {
  // No more than graphs are kept: of more lists that take turns, each would be
  // made anew every time.
  constexpr size_t kRemembered = kMaxGraphs;
  const size_t hash = held_.Hash();
  if (std::find(seen_.begin(), seen_.end(), hash) != seen_.end()) return true;
  if (seen_.size() < kRemembered) {
    seen_.push_back(hash);
  } else {
    seen_[next_seen_] = hash;
    next_seen_ = (next_seen_ + 1) % kRemembered;
  }
  return false;
}

}  // namespace headcount::cuda
