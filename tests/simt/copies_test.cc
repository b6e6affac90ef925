// Asynchronous copies: what is there once one has waited, and what before.
#include <gtest/gtest.h>

#include <bit>
#include <numeric>
#include <vector>

#include "backend/cuda/ptx.h"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

constexpr uint32_t kPoison = 0xFFFFFFFF;

std::vector<uint32_t> Counting(size_t size) {
  std::vector<uint32_t> values(size);
  std::iota(values.begin(), values.end(), 1u);
  return values;
}

// Group g copies words 4g to 4g + 3 of each thread's own 16; before waiting for
// all, `out` gets what is there while `kLeft` groups may be on their way.
template <int kLeft>
__global__ void Groups(const uint32_t* in, uint32_t* out) {
  HEADCOUNT_SHARED(shared);
  auto* words = reinterpret_cast<uint32_t*>(shared) + threadIdx.x * 16;
  in += threadIdx.x * 16;
  out += threadIdx.x * 16;
  for (int group = 0; group < 4; ++group) {
    ptx::CpAsync16(words + group * 4, in + group * 4);
    ptx::CpAsyncCommit();
  }
  ptx::CpAsyncWait<kLeft>();
  for (int i = 0; i < 16; ++i) out[i] = words[i];
  ptx::CpAsyncWait<0>();
}

template <int kLeft>
void ExpectGroups() {
  const simt::Buffer<uint32_t> in(Counting(32 * 16));
  simt::Buffer<uint32_t> out(32 * 16);
  const simt::Counters counters =
      simt::Launch({.delivery = simt::Delivery::kLate, .races = false}, 1, 32,
                   32 * 64, Groups<kLeft>, in.data(), out.data());
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_EQ(out[i], i % 16 / 4 < 4 - kLeft ? in[i] : kPoison);
  }
  EXPECT_EQ(counters.async_copies, 4 * 32);
}

TEST(CpAsync, IsThereOnceItsGroupWasWaitedForAndNotBefore) {
  ExpectGroups<0>();
  ExpectGroups<1>();
  ExpectGroups<3>();
  ExpectGroups<4>();
}

TEST(CpAsync, ComesAtOnceOrAtRandomToo) {
  const simt::Buffer<uint32_t> in(Counting(32 * 16));
  simt::Buffer<uint32_t> out(32 * 16);
  const auto poisoned = [&](simt::Delivery delivery) {
    simt::Launch({.delivery = delivery, .races = false}, 1, 32, 32 * 64,
                 Groups<4>, in.data(), out.data());
    return std::count(out.begin(), out.end(), kPoison);
  };
  EXPECT_EQ(poisoned(simt::Delivery::kImmediate), 0);
  EXPECT_EQ(poisoned(simt::Delivery::kLate), 32 * 16);
  EXPECT_GT(poisoned(simt::Delivery::kRandom), 32 * 4);
  EXPECT_LT(poisoned(simt::Delivery::kRandom), 32 * 12);
}

constexpr int kStages = 3;
constexpr int kTileWords = 64;

// Warp 0 brings tiles into a ring of stages, three warps add up their words.
__global__ void Ring(const uint32_t* in, uint32_t* sum, int tiles) {
  HEADCOUNT_SHARED(shared);
  auto* ring = reinterpret_cast<uint32_t*>(shared);
  auto* full = reinterpret_cast<ptx::Barrier*>(ring + kStages * kTileWords);
  auto* empty = full + kStages;
  constexpr int kConsumers = 96;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::BarrierInit(full + i, 1);
      ptx::BarrierInit(empty + i, kConsumers);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    if (threadIdx.x != 0) return;
    for (int i = 0; i < tiles; ++i) {
      const int stage = i % kStages;
      const unsigned round = unsigned(i / kStages);
      if (round > 0) ptx::BarrierWait(empty + stage, (round - 1) & 1);
      ptx::BarrierExpectBytes(full + stage, kTileWords * 4);
      ptx::BulkCopy(ring + stage * kTileWords, in + i * kTileWords,
                    kTileWords * 4, full + stage);
    }
    return;
  }
  uint32_t mine = 0;
  for (int i = 0; i < tiles; ++i) {
    const int stage = i % kStages;
    ptx::BarrierWait(full + stage, unsigned(i / kStages) & 1);
    for (int j = int(threadIdx.x) - 32; j < kTileWords; j += kConsumers) {
      mine += ring[stage * kTileWords + j];
    }
    ptx::BarrierArrive(empty + stage);
  }
  atomicAdd(sum, mine);
}

constexpr size_t kRingBytes =
    kStages * (kTileWords * 4 + 2 * sizeof(ptx::Barrier));

TEST(BulkCopy, FeedsARingInEveryOrderAndDelivery) {
  constexpr int kTiles = 11;
  const simt::Buffer<uint32_t> in(Counting(kTiles * kTileWords));
  const uint32_t expected = std::accumulate(in.begin(), in.end(), 0u);
  for (simt::Options options : simt::AllOrders()) {
    for (const auto delivery :
         {simt::Delivery::kLate, simt::Delivery::kImmediate,
          simt::Delivery::kRandom}) {
      options.delivery = delivery;
      uint32_t sum = 0;
      const simt::Counters counters = simt::Launch(
          options, 1, 128, kRingBytes, Ring, in.data(), &sum, kTiles);
      EXPECT_EQ(sum, expected);
      EXPECT_EQ(counters.bulk_copies, kTiles);
      EXPECT_EQ(counters.sectors_read, kTiles * kTileWords * 4 / 32);
    }
  }
}

// Reads before it waits, after the copy was issued.
__global__ void Peek(const uint32_t* in, uint32_t* out) {
  HEADCOUNT_SHARED(shared);
  auto* words = reinterpret_cast<uint32_t*>(shared);
  auto* barrier = reinterpret_cast<ptx::Barrier*>(shared + 64);
  ptx::BarrierInit(barrier, 1);
  ptx::FenceBarrierInit();
  ptx::BarrierExpectBytes(barrier, 64);
  ptx::BulkCopy(words, in, 64, barrier);
  out[0] = words[15];
  ptx::BarrierWait(barrier, 0);
  out[1] = words[15];
}

TEST(BulkCopy, IsPoisonForWhoeverDoesNotWait) {
  const simt::Buffer<uint32_t> in(Counting(16));
  simt::Buffer<uint32_t> out(2);
  const auto launch = [&](simt::Delivery delivery) {
    simt::Launch({.delivery = delivery, .races = false}, 1, 1, 128, Peek,
                 in.data(), out.data());
    return out.ToVector();
  };
  EXPECT_EQ(launch(simt::Delivery::kLate),
            (std::vector<uint32_t>{kPoison, 16}));
  EXPECT_EQ(launch(simt::Delivery::kImmediate),
            (std::vector<uint32_t>{16, 16}));
}

// Thread 1 arrives for thread 0, phase after phase.
__global__ void Phases(int* order, int phases) {
  HEADCOUNT_SHARED(shared);
  auto* barriers = reinterpret_cast<ptx::Barrier*>(shared);
  auto* turn = reinterpret_cast<int*>(shared + 32);
  if (threadIdx.x == 0) {
    ptx::BarrierInit(barriers, 1);
    ptx::BarrierInit(barriers + 1, 1);
    *turn = 0;
  }
  __syncthreads();
  for (int i = 0; i < phases; ++i) {
    const unsigned parity = unsigned(i) & 1;
    if (threadIdx.x == 0) {
      order[(*turn)++] = 0;
      ptx::BarrierArrive(barriers);
      ptx::BarrierWait(barriers + 1, parity);
    } else {
      ptx::BarrierWait(barriers, parity);
      order[(*turn)++] = 1;
      ptx::BarrierArrive(barriers + 1);
    }
  }
}

TEST(Barrier, TakesTurnsByParity) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<int> order(10);
    simt::Launch(options, 1, 2, 64, Phases, order.data(), 5);
    for (size_t i = 0; i < 10; ++i) EXPECT_EQ(order[i], int(i % 2));
  }
}

TEST(LoadAndStore, Move16Bytes) {
  const simt::Buffer<uint32_t> in(Counting(32 * 4));
  simt::Buffer<uint32_t> out(32 * 4);
  simt::Launch(1, 32, 0, [&] {
    uint32_t words[4];
    ptx::LoadGlobal16(in.data() + threadIdx.x * 4, words);
    const ptx::Float4 four = std::bit_cast<ptx::Float4>(words);
    ptx::Store(four, reinterpret_cast<ptx::Float4*>(out.data()) + threadIdx.x);
  });
  EXPECT_EQ(out.ToVector(), in.ToVector());
}

}  // namespace
}  // namespace headcount
