// A CUDA device as the backend uses it: memory, copies, and kernels that run
// one after the other. The backend's tests run on another implementation, the
// emulator of tests/simt.
//
// What is called a launch below is in the order of its calls and may return
// before it is done. One thread at a time launches; memory may be allocated,
// freed and filled by others meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/cuda/kernel.h"

namespace headcount::cuda {

// The parameters of a launch that zeroes memory.
struct ZeroParams {
  void* device = nullptr;
  int64_t bytes = 0;
};

// A launch as data.
struct LaunchCall {
  const void* kernel = nullptr;  // null: zeroes memory
  // Calls the kernel as a function, for a device that takes those.
  void (*run)(const void* kernel, const void* params) = nullptr;
  int64_t grid = 0;  // blocks
  int32_t threads = 0;
  int32_t shared_bytes = 0;
  const void* params = nullptr;  // the kernel's only argument, or ZeroParams
  int64_t params_bytes = 0;
};

// Launches that go out together and run in their order, as CUDA's graphs do.
// Has copies of their parameters. The device outlives it.
class Graph {
 public:
  virtual ~Graph() = default;
  // Replaces the parameters of one launch, from the next Launch on; all else
  // of `call` is as it was. False: it cannot, and the graph is of no more use.
  virtual bool SetParams(size_t index, const LaunchCall& call) = 0;
  virtual void Launch() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // such as "NVIDIA H100 80GB HBM3"
  virtual int multiprocessors() const = 0;
  virtual int64_t FreeBytes() const = 0;
  // The first error of those that stay, such as a kernel's illegal address:
  // Unavailable. Launches do nothing from then on. Thread-safe.
  virtual absl::Status status() const = 0;

  // Of the device, at a multiple of 128 bytes. ResourceExhausted, with needed
  // and available, when there is no room. bytes > 0.
  virtual absl::StatusOr<void*> Allocate(int64_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  // Of the host, from which copies need not wait; never null. By the thread
  // that launches, as FreeHost.
  virtual void* AllocateHost(int64_t bytes) = 0;
  virtual void FreeHost(void* memory) = 0;

  // Returns when the copy is done, which waits for no launch.
  virtual void Fill(const void* host, int64_t bytes, void* device) = 0;

  // Launches.
  virtual void Upload(const void* host, int64_t bytes, void* device) = 0;
  virtual void Download(const void* device, int64_t bytes, void* host) = 0;
  virtual void Zero(void* device, int64_t bytes) = 0;
  virtual void Issue(const LaunchCall& call) = 0;  // of a kernel
  template <class Params>
  void Launch(const Kernel<Params>& kernel, int64_t grid, Params params) {
    if (grid == 0) return;
#if __has_builtin(__builtin_clear_padding)
    // Equal parameters have equal bytes, so that graphs are found again.
    __builtin_clear_padding(&params);
#endif
    Issue({.kernel = reinterpret_cast<const void*>(kernel.kernel),
           .run = Run<Params>,
           .grid = grid,
           .threads = kernel.threads,
           .shared_bytes = kernel.shared_bytes,
           .params = &params,
           .params_bytes = sizeof(Params)});
  }

  // Null where the device cannot: launches then go out one by one.
  virtual std::unique_ptr<Graph> MakeGraph(
      absl::Span<const LaunchCall> calls) = 0;

  // A range on the timeline of a profiler (NVTX), from here to its end on the
  // same thread. `name` is a literal.
  virtual void BeginRange(const char* name) = 0;
  virtual void EndRange() = 0;

  // Waits for all launches.
  virtual void Synchronize() = 0;

 private:
  template <class Params>
  static void Run(const void* kernel, const void* params) {
    reinterpret_cast<void (*)(const Params)>(const_cast<void*>(kernel))(
        *static_cast<const Params*>(params));
  }
};

// A range for as long as this lives.
class Range {
 public:
  Range(Device* device, const char* name) : device_(device) {
    device_->BeginRange(name);
  }
  ~Range() { device_->EndRange(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  Device* const device_;
};

// FailedPrecondition, with what to do about it, when there is no driver, no
// such device, or one that the kernels were not compiled for. Thread-safe.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(int ordinal);

}  // namespace headcount::cuda
