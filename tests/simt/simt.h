// Runs CUDA kernels on the CPU, so that they are tested where there is no GPU.
//
//   simt::Buffer<float> sums(7);  // poisoned: all bytes 0xFF, a NaN
//   for (const simt::Options& options : simt::AllOrders()) {
//     simt::Launch(options, {7}, {128}, shared_bytes, SumKernel, x,
//     sums.data());
//     ... compare sums with a plain loop ...
//   }
//
// A CUDA thread is a fiber that runs until it has to wait for another; blocks
// run one after another. What kernels see is in cuda.h and ptx.h. A kernel that
// does what it must not ends the process with a report: EXPECT_DEATH sees it.
// docs/simt.md says what is caught and what is not.
//
// One launch at a time: nothing here may be used from two threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/simt/buffer.h"

namespace headcount::simt {

// A place in a kernel. Default arguments of what kernels call make it that of
// the call. (std::source_location, which clang 14 does not have.)
struct Where {
  const char* file = "";
  int line = 0;

  static constexpr Where Here(const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Where&) const = default;
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;

  // NOLINTNEXTLINE(google-explicit-constructor): as CUDA's dim3.
  constexpr Dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
  constexpr size_t Volume() const { return size_t{x} * y * z; }
};

// Which of the threads that can run runs next, and which block.
// kWarpByWarp: a warp goes on while one of its lanes can, so that it runs ahead
// of the others.
enum class Order { kForward, kReverse, kShuffled, kWarpByWarp };

// When an asynchronous copy arrives. What is right must not depend on it:
// whoever reads too soon finds poison if it is late, and whoever overwrites
// what others still read spoils it if it is immediate.
enum class Delivery {
  kByOrder,    // late, immediate, random and immediate for the four orders
  kLate,       // cp.async: at the wait. Bulk: when no thread can go on
  kImmediate,  // with the call
  kRandom,
};

struct Options {
  Order order = Order::kForward;
  uint64_t seed = 1;  // of kShuffled and kRandom
  Delivery delivery = Delivery::kByOrder;
  // Report accesses to shared memory that no barrier keeps apart.
  bool races = true;
};

// Forward, reverse, two shuffles, and warp by warp.
std::vector<Options> AllOrders();

// What a launch did, summed over its blocks.
struct Counters {
  // Sectors of 32 bytes that warps asked for: loads and copies; stores. A
  // sector that two lanes want in the same instruction counts once. Only what
  // goes through ptx.h is seen.
  int64_t sectors_read = 0;
  int64_t sectors_written = 0;
  // The same, but a sector that a block loads or stores again counts once: what
  // is left behind a cache. Those of copies go by it, and count each time.
  int64_t sectors_moved = 0;
  // 8x8 matrices that ldmatrix read, or eight lanes by LoadShared16, and the
  // passes over the banks of shared memory that they took: as many if no two
  // rows of a matrix share a bank.
  int64_t matrices = 0;
  int64_t matrix_passes = 0;
  int64_t barriers = 0;      // __syncthreads and named barriers, each once
  int64_t collectives = 0;   // of warps: shuffles, votes, mma, ldmatrix, ...
  int64_t async_copies = 0;  // cp.async of each thread
  int64_t bulk_copies = 0;
};

namespace internal {
Counters Run(const Options& options, Dim3 grid, Dim3 block, size_t shared_bytes,
             const std::function<void()>& thread);
}  // namespace internal

// kernel<<<grid, block, shared_bytes>>>(args...). Arguments are copied, as by
// CUDA.
template <typename Kernel, typename... Args>
Counters Launch(const Options& options, Dim3 grid, Dim3 block,
                size_t shared_bytes, Kernel&& kernel, Args&&... args) {
  const std::tuple<std::decay_t<Args>...> copies(std::forward<Args>(args)...);
  return internal::Run(options, grid, block, shared_bytes,
                       [&] { std::apply(kernel, copies); });
}

template <typename Kernel, typename... Args>
Counters Launch(Dim3 grid, Dim3 block, size_t shared_bytes, Kernel&& kernel,
                Args&&... args) {
  return Launch(Options{}, grid, block, shared_bytes,
                std::forward<Kernel>(kernel), std::forward<Args>(args)...);
}

}  // namespace headcount::simt
