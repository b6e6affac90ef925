#include "tests/gpu/device_simt.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "tests/gpu/device.h"
#include "tests/simt/simt.h"

namespace headcount::gpu {
namespace {

simt::Counters counted;
int64_t allocations = 0;

void Add(const simt::Counters& more) {
  counted.sectors_moved += more.sectors_moved;
  counted.matrices += more.matrices;
  counted.matrix_passes += more.matrix_passes;
}

// HEADCOUNT_SIMT_ORDER: "forward", the default, "reverse", "shuffled" or
// "warp_by_warp".
simt::Order OrderFromEnvironment() {
  const char* order = std::getenv("HEADCOUNT_SIMT_ORDER");
  if (order == nullptr || std::strcmp(order, "forward") == 0) {
    return simt::Order::kForward;
  }
  if (std::strcmp(order, "reverse") == 0) return simt::Order::kReverse;
  if (std::strcmp(order, "warp_by_warp") == 0) {
    return simt::Order::kWarpByWarp;
  }
  CHECK(std::strcmp(order, "shuffled") == 0)
      << "HEADCOUNT_SIMT_ORDER is " << order;
  return simt::Order::kShuffled;
}

void Copy(const void* from, int64_t bytes, void* to) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

// Has copies, as CUDA's graphs do: what is not replaced stays as it was.
class SimtGraph final : public cuda::Graph {
 public:
  SimtGraph(cuda::Device* device, absl::Span<const cuda::LaunchCall> calls)
      : device_(*device) {
    for (const cuda::LaunchCall& call : calls) {
      nodes_.emplace_back().call = call;
      CHECK(SetParams(nodes_.size() - 1, call));
    }
  }

  bool SetParams(size_t index, const cuda::LaunchCall& call) override {
    Node& node = nodes_[index];
    CHECK(node.call.kernel == call.kernel && node.call.grid == call.grid);
    node.params.resize(static_cast<size_t>(call.params_bytes));
    Copy(call.params, call.params_bytes, node.params.data());
    node.call.params = node.params.data();
    return true;
  }
  void Launch() override {
    for (const Node& node : nodes_) {
      if (node.call.kernel != nullptr) {
        device_.Issue(node.call);
        continue;
      }
      const auto& zero =
          *static_cast<const cuda::ZeroParams*>(node.call.params);
      device_.Zero(zero.device, zero.bytes);
    }
  }

 private:
  struct Node {
    cuda::LaunchCall call;
    std::vector<std::byte> params;
  };

  cuda::Device& device_;
  std::vector<Node> nodes_;
};

// Launches are done when they return.
class SimtDevice final : public cuda::Device {
 public:
  struct Options {
    bool launches = true;
    int64_t fails_after = INT64_MAX;  // launches
    int64_t bytes = INT64_MAX;
  };
  explicit SimtDevice(const Options& options)
      : launches_(options.launches),
        fails_after_(options.fails_after),
        free_(options.bytes) {}

  std::string name() const override { return "emulator"; }
  int multiprocessors() const override { return 3; }
  int64_t FreeBytes() const override {
    return std::min(free_, int64_t{1} << 32);
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    if (!status().ok()) return status();
    if (bytes > free_) {
      return absl::ResourceExhaustedError(
          absl::StrCat(bytes, " bytes needed, ", free_, " available"));
    }
    free_ -= bytes;
    auto buffer = std::make_unique<simt::Buffer<unsigned char>>(
        static_cast<size_t>(bytes));
    void* const memory = buffer->data();
    buffers_[memory] = std::move(buffer);
    ++allocations;
    return memory;
  }
  void Free(void* memory) override {
    const auto found = buffers_.find(memory);
    CHECK(found != buffers_.end());
    free_ += static_cast<int64_t>(found->second->size());
    buffers_.erase(found);
  }
  void* AllocateHost(int64_t bytes) override {
    ++allocations;
    return ::operator new(static_cast<size_t>(bytes));
  }
  void FreeHost(void* memory) override { ::operator delete(memory); }

  void Fill(const void* host, int64_t bytes, void* device) override {
    Copy(host, bytes, device);
  }
  void Upload(const void* host, int64_t bytes, void* device) override {
    if (status().ok()) Copy(host, bytes, device);
  }
  void Download(const void* device, int64_t bytes, void* host) override {
    if (status().ok()) Copy(device, bytes, host);
  }
  void Zero(void* device, int64_t bytes) override {
    if (status().ok()) std::memset(device, 0, static_cast<size_t>(bytes));
  }
  void BeginRange(const char* /*name*/) override { ++open_ranges_; }
  void EndRange() override { CHECK(--open_ranges_ >= 0); }
  void Synchronize() override {}
  absl::Status status() const override {
    return launched_ > fails_after_ ? absl::UnavailableError("it is broken")
                                    : absl::OkStatus();
  }

  void Issue(const cuda::LaunchCall& call) override {
    ++launched_;
    if (!launches_ || !status().ok()) return;
    Add(simt::Launch({.order = OrderFromEnvironment()},
                     static_cast<unsigned>(call.grid),
                     static_cast<unsigned>(call.threads),
                     static_cast<size_t>(call.shared_bytes),
                     [&] { call.run(call.kernel, call.params); }));
  }
  std::unique_ptr<cuda::Graph> MakeGraph(
      absl::Span<const cuda::LaunchCall> calls) override {
    ++allocations;
    return std::make_unique<SimtGraph>(this, calls);
  }

 private:
  const bool launches_;
  const int64_t fails_after_;
  int64_t free_;
  int64_t launched_ = 0;
  int open_ranges_ = 0;
  std::map<void*, std::unique_ptr<simt::Buffer<unsigned char>>> buffers_;
};

}  // namespace

int64_t TestAllocations() { return allocations; }

simt::Counters TakeCounters() { return std::exchange(counted, {}); }

std::unique_ptr<cuda::Device> OpenTestDevice(bool launches) {
  return std::make_unique<SimtDevice>(
      SimtDevice::Options{.launches = launches});
}

std::unique_ptr<cuda::Device> OpenFailingDevice(int64_t launches) {
  return std::make_unique<SimtDevice>(
      SimtDevice::Options{.launches = false, .fails_after = launches});
}

std::unique_ptr<cuda::Device> OpenSmallDevice(int64_t bytes) {
  return std::make_unique<SimtDevice>(SimtDevice::Options{.bytes = bytes});
}

int Workers() { return 7; }

bool IsEmulator() { return true; }

}  // namespace headcount::gpu
