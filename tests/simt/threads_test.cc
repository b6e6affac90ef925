// Threads, warps and blocks, against plain loops.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "backend/cuda/ptx.h"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

constexpr uint32_t kAll = ~0u;

__global__ void WriteIndices(unsigned* out) {
  const unsigned thread =
      threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block =
      blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = threadIdx.x + 10 * threadIdx.y +
                                  100 * threadIdx.z + 1000 * blockIdx.x +
                                  10000 * blockIdx.y + 100000 * blockIdx.z;
}

TEST(Threads, KnowTheirPlaceInTheirBlockAndItsInTheGrid) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<unsigned> out(2 * 3 * 4 * 8 * 2 * 3);
    simt::Launch(options, {2, 3, 4}, {8, 2, 3}, 0, WriteIndices, out.data());
    size_t i = 0;
    for (unsigned block = 0; block < 24; ++block) {
      for (unsigned thread = 0; thread < 48; ++thread) {
        const unsigned expected = thread % 8 + thread / 8 % 2 * 10 +
                                  thread / 16 * 100 + block % 2 * 1000 +
                                  block / 2 % 3 * 10000 + block / 6 * 100000;
        ASSERT_EQ(out[i++], expected) << block << ' ' << thread;
      }
    }
  }
}

TEST(Threads, RunInTheOrderThatIsAsked) {
  const auto run = [](const simt::Options& options) {
    std::vector<unsigned> order;
    simt::Launch(options, 3, 64, 0,
                 [&] { order.push_back(blockIdx.x * 64 + threadIdx.x); });
    return order;
  };
  std::vector<unsigned> all(192);
  std::iota(all.begin(), all.end(), 0u);
  EXPECT_EQ(run({.order = simt::Order::kForward}), all);
  const auto one = run({.order = simt::Order::kShuffled, .seed = 1});
  const auto two = run({.order = simt::Order::kShuffled, .seed = 2});
  EXPECT_NE(one, two);
  EXPECT_EQ(one, run({.order = simt::Order::kShuffled, .seed = 1}));
  EXPECT_EQ(std::set<unsigned>(one.begin(), one.end()).size(), 192u);
  std::reverse(all.begin(), all.end());
  EXPECT_EQ(run({.order = simt::Order::kReverse}), all);
}

__global__ void SharedMemory(uint32_t* before, int* aligned) {
  HEADCOUNT_SHARED(shared);
  auto* words = reinterpret_cast<uint32_t*>(shared);
  before[blockIdx.x * 32 + threadIdx.x] = words[threadIdx.x];
  words[threadIdx.x] = 0;
  if (threadIdx.x == 0) {
    aligned[blockIdx.x] = reinterpret_cast<uintptr_t>(shared) % 128 == 0;
  }
}

TEST(SharedMemoryOfABlock, IsAlignedAndPoisonedForEachBlock) {
  simt::Buffer<uint32_t> before(5 * 32);
  simt::Buffer<int> aligned(5);
  simt::Launch(5, 32, 128, SharedMemory, before.data(), aligned.data());
  for (const uint32_t word : before) EXPECT_EQ(word, 0xFFFFFFFFu);
  for (const int is : aligned) EXPECT_EQ(is, 1);
}

TEST(Buffer, IsPoison) {
  const simt::Buffer<float> buffer(9);
  for (const float value : buffer) EXPECT_TRUE(std::isnan(value));
  const simt::Buffer<int> copy(std::vector<int>{1, 2, 3});
  EXPECT_EQ(copy.ToVector(), (std::vector<int>{1, 2, 3}));
}

// Each thread writes for the next, round after round.
__global__ void PassOn(const int* in, int* out, int rounds) {
  HEADCOUNT_SHARED(shared);
  auto* values = reinterpret_cast<int*>(shared);
  int value = in[threadIdx.x];
  for (int i = 0; i < rounds; ++i) {
    values[threadIdx.x] = value;
    __syncthreads();
    value = values[(threadIdx.x + 1) % blockDim.x] + 1;
    __syncthreads();
  }
  out[threadIdx.x] = value;
}

TEST(SyncThreads, KeepsRoundsApart) {
  std::vector<int> in(96);
  std::iota(in.begin(), in.end(), 0);
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<int> out(96);
    const simt::Counters counters = simt::Launch(
        options, 1, 96, 96 * sizeof(int), PassOn, in.data(), out.data(), 5);
    for (int i = 0; i < 96; ++i) {
      EXPECT_EQ(out[size_t(i)], (i + 5) % 96 + 5);
    }
    EXPECT_EQ(counters.barriers, 10);
  }
}

__global__ void LeaveEarly(int* out) {
  if (threadIdx.x >= 64) return;
  __syncthreads();
  atomicAdd(out, 1);
}

TEST(SyncThreads, DoesNotWaitForThreadsThatHaveEnded) {
  for (const simt::Options& options : simt::AllOrders()) {
    int out = 0;
    simt::Launch(options, 1, 128, 0, LeaveEarly, &out);
    EXPECT_EQ(out, 64);
  }
}

// Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2, and each pair
// hands over values on its own.
__global__ void Pairs(int* out) {
  HEADCOUNT_SHARED(shared);
  auto* values = reinterpret_cast<int*>(shared);
  const int pair = static_cast<int>(threadIdx.x) / 64;
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  ptx::NamedBarrierSync(1 + pair, 64);
  out[threadIdx.x] = values[threadIdx.x ^ 63];
}

TEST(NamedBarrier, HoldsItsThreadsOnly) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<int> out(128);
    const simt::Counters counters =
        simt::Launch(options, 1, 128, 512, Pairs, out.data());
    for (int i = 0; i < 128; ++i) EXPECT_EQ(out[size_t(i)], i ^ 63);
    EXPECT_EQ(counters.barriers, 2);
  }
}

struct Shuffled {
  int of_lane_5, exchanged, down, up;
  double wide;
};

__global__ void Shuffle(Shuffled* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int value = static_cast<int>(threadIdx.x) * 3;
  Shuffled& mine = out[threadIdx.x];
  mine.of_lane_5 = __shfl_sync(kAll, value, 5);
  mine.exchanged = __shfl_xor_sync(kAll, value, 9);
  mine.down = __shfl_down_sync(kAll, value, 4);
  mine.up = __shfl_up_sync(kAll, value, 4);
  mine.wide = __shfl_sync(kAll, value + 0.25, (lane + 1) % 32);
}

TEST(Shuffle, GivesWhatTheOtherLaneHas) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<Shuffled> out(64);
    const simt::Counters counters =
        simt::Launch(options, 1, 64, 0, Shuffle, out.data());
    for (int i = 0; i < 64; ++i) {
      const int lane = i % 32, warp = i - lane;
      const Shuffled& got = out[size_t(i)];
      EXPECT_EQ(got.of_lane_5, (warp + 5) * 3);
      EXPECT_EQ(got.exchanged, (warp + (lane ^ 9)) * 3);
      EXPECT_EQ(got.down, (lane + 4 < 32 ? i + 4 : i) * 3);
      EXPECT_EQ(got.up, (lane >= 4 ? i - 4 : i) * 3);
      EXPECT_EQ(got.wide, (warp + (lane + 1) % 32) * 3 + 0.25);
    }
    EXPECT_EQ(counters.collectives, 5 * 2);
  }
}

// Lanes that part meet with their like.
__global__ void Diverge(uint32_t* out) {
  const unsigned lane = threadIdx.x;
  if (lane < 8) {
    out[lane] = __shfl_xor_sync(0xFFu, lane, 1);
  } else {
    out[lane] = __ballot_sync(0xFFFFFF00u, lane % 3 == 0);
  }
  __syncwarp();
  out[lane] += __any_sync(kAll, lane == 31) ? 1000u : 0u;
  out[lane] += __all_sync(kAll, lane != 31) ? 5000u : 0u;
}

TEST(Vote, CountsTheLanesOfItsMask) {
  uint32_t votes = 0;
  for (unsigned lane = 8; lane < 32; ++lane) {
    if (lane % 3 == 0) votes |= 1u << lane;
  }
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<uint32_t> out(32);
    simt::Launch(options, 1, 32, 0, Diverge, out.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
      EXPECT_EQ(out[lane], (lane < 8 ? lane ^ 1 : votes) + 1000);
    }
  }
}

// The block that comes last adds up what all have left.
__global__ void LastAdds(float* parts, int* arrived, float* sum) {
  HEADCOUNT_SHARED(shared);
  auto* is_last = reinterpret_cast<int*>(shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = float(blockIdx.x) + 0.5f;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *is_last = atomicAdd(arrived, 1) == int(gridDim.x) - 1;
  }
  __syncthreads();
  if (*is_last == 0 || threadIdx.x != 0) return;
  *sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) *sum += ptx::LoadGlobal(parts + i);
}

TEST(Blocks, HandOverThroughGlobalMemory) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<float> parts(13), sum(1);
    int arrived = 0;
    simt::Launch(options, 13, 64, 16, LastAdds, parts.data(), &arrived,
                 sum.data());
    EXPECT_EQ(sum[0], 13 * 12 / 2 + 13 * 0.5f);
  }
}

TEST(Atomics, GiveWhatWasThere) {
  int most = 3;
  unsigned sum = 0, place = 7;
  std::vector<unsigned> before(64);
  simt::Launch(1, 64, 0, [&] {
    before[threadIdx.x] = atomicAdd(&sum, 1);
    atomicMax(&most, static_cast<int>(threadIdx.x));
    if (threadIdx.x == 9) {
      EXPECT_EQ(atomicExch(&place, 8), 7u);
      EXPECT_EQ(atomicCAS(&place, 7, 9), 8u);
      EXPECT_EQ(atomicCAS(&place, 8, 10), 8u);
    }
  });
  EXPECT_EQ(sum, 64u);
  EXPECT_EQ(most, 63);
  EXPECT_EQ(place, 10u);
  EXPECT_EQ(std::set<unsigned>(before.begin(), before.end()).size(), 64u);
}

TEST(Launch, TakesBlocksOfAllSizesInTurn) {
  for (const unsigned threads : {1u, 31u, 1024u, 32u, 256u}) {
    int sum = 0;
    simt::Launch(2, threads, threads, [&] {
      __syncthreads();
      atomicAdd(&sum, 1);
    });
    EXPECT_EQ(sum, int(2 * threads));
  }
}

}  // namespace
}  // namespace headcount
