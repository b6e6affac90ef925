// What the kernels move and how they read shared memory, as the emulator
// counts it.
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/attention_world.h"
#include "tests/gpu/device_simt.h"

namespace headcount::gpu {
namespace {

struct Traffic {
  double bytes = 0;  // of global memory
  double floor = 0;
  double passes_per_matrix = 0;
};

Traffic Measure(const AttentionCase& attention_case) {
  const AttentionWorld world(attention_case);
  TakeCounters();
  EXPECT_LT(world.RelativeError(), 1e-2);
  const simt::Counters counters = TakeCounters();
  return {.bytes = 32.0 * static_cast<double>(counters.sectors_moved),
          .floor = static_cast<double>(world.FloorBytes()),
          .passes_per_matrix = static_cast<double>(counters.matrix_passes) /
                               static_cast<double>(counters.matrices)};
}

AttentionCase Decode(const std::vector<int>& groups, KvDtype dtype) {
  return {.groups = groups,
          .head_dim = 128,
          .dtype = dtype,
          .sequences = {{300, 1}, {511, 1}},
          .activation = cuda::Activation::kBf16,
          .workers = 1};
}

TEST(TrafficTest, DecodeMovesWhatItMust) {
  for (const KvDtype dtype :
       {KvDtype::kBf16, KvDtype::kFp8E4m3, KvDtype::kInt8, KvDtype::kInt4}) {
    const Traffic traffic = Measure(Decode({4, 4, 4, 4}, dtype));
    EXPECT_GE(traffic.bytes, traffic.floor) << KvDtypeName(dtype);
    EXPECT_LE(traffic.bytes, 1.05 * traffic.floor) << KvDtypeName(dtype);
  }
}

TEST(TrafficTest, HalfTheKvHeadsMoveHalf) {
  const Traffic whole = Measure(Decode({4, 4, 4, 4}, KvDtype::kBf16));
  const Traffic half = Measure(Decode({4, 4}, KvDtype::kBf16));
  EXPECT_NEAR(half.bytes / whole.bytes, 0.5, 0.01);
}

TEST(TrafficTest, NoBankConflicts) {
  for (const KvDtype dtype :
       {KvDtype::kBf16, KvDtype::kFp8E4m3, KvDtype::kInt4}) {
    for (const int head_dim : {32, 64, 80, 96, 128, 256}) {
      for (const int rows : {1, 40}) {
        const Traffic traffic = Measure({.groups = {3, 1},
                                         .head_dim = head_dim,
                                         .dtype = dtype,
                                         .sequences = {{70, rows}}});
        EXPECT_EQ(traffic.passes_per_matrix, 1.0)
            << KvDtypeName(dtype) << " head_dim " << head_dim << " rows "
            << rows;
      }
    }
  }
}

}  // namespace
}  // namespace headcount::gpu
