#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/attention_world.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

constexpr int kHeadDims[] = {8, 16, 24, 32, 40, 64, 80, 96, 128, 136, 256};

AttentionPlanOptions SmallChunks() {
  AttentionPlanOptions options;
  options.chunk_tokens = 32;
  options.tile_rows = 7;
  options.max_split_rows = 3;
  return options;
}

constexpr KvDtype kDtypes[] = {KvDtype::kF32,  KvDtype::kF16,
                               KvDtype::kBf16, KvDtype::kFp8E4m3,
                               KvDtype::kInt8, KvDtype::kInt4};

// Of a row's largest element: rounding errors of float32 sums, and of queries
// and weights in 16 bits beside integer pages.
double ToleranceOf(KvDtype dtype) {
  return dtype == KvDtype::kInt8 || dtype == KvDtype::kInt4 ? 3e-4 : 1e-5;
}

void ExpectAgrees(const AttentionWorld& world, const std::vector<float>& out,
                  double tolerance) {
  const std::vector<double> expected = world.Reference();
  ASSERT_EQ(out.size(), expected.size());
  const auto width = static_cast<size_t>(world.out_width());
  for (size_t row = 0; row < out.size(); row += width) {
    double largest = 0;
    for (size_t i = row; i < row + width; ++i) {
      largest = std::max(largest, std::fabs(expected[i]));
    }
    for (size_t i = row; i < row + width; ++i) {
      ASSERT_NEAR(out[i], expected[i], tolerance * largest)
          << "row " << row / width << ", element " << i - row;
    }
  }
}

void ExpectAgreesWithReference(const AttentionCase& attention_case,
                               Backend* backend) {
  SCOPED_TRACE(std::string(KvDtypeName(attention_case.dtype)) + ", head_dim " +
               std::to_string(attention_case.head_dim));
  const AttentionWorld world(attention_case, 1);
  double tolerance = ToleranceOf(attention_case.dtype);
  for (const auto& [head, dtype] : attention_case.head_dtypes) {
    tolerance = std::max(tolerance, ToleranceOf(dtype));
  }
  ExpectAgrees(world,
               world.Run(world.RandomSchedule(2), SmallChunks(), backend, 3),
               tolerance);
}

TEST(AttentionTest, AgreesWithDoublePrecisionForEveryHeadDim) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget(
      [&] {
        for (const int head_dim : kHeadDims) {
          for (const KvDtype dtype : kDtypes) {
            ExpectAgreesWithReference({.shape = {4, 2},
                                       .head_dim = head_dim,
                                       .dtype = dtype,
                                       .lengths = {1, 70, 17}},
                                      backend.get());
          }
        }
      },
      HWY_AVX3_DL);
}

TEST(AttentionTest, AgreesWithDoublePrecisionForEveryGrouping) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  const AttentionCase kCases[] = {
      {.shape = {4, 4}, .lengths = {35}},
      {.shape = {32, 8}, .lengths = {40}},
      {.shape = {9, 3}, .lengths = {33, 50}},
      {.shape = {4, 1}, .lengths = {35}},
      {.shape = {16, 1}, .lengths = {60}},
      {.shape = {20, 1}, .lengths = {90}},
      // Groups of 3 and 1; of 3, 1, 2; of a KV head gone; one query head left;
      // none.
      {.shape = {6, 2}, .pruned = {3, 5}, .lengths = {40}},
      {.shape = {9, 3}, .pruned = {3, 5, 7}, .lengths = {33, 50}},
      {.shape = {12, 4}, .pruned = {0, 1, 2, 11}, .lengths = {40}},
      {.shape = {4, 4}, .pruned = {0, 1, 3}, .lengths = {35}},
      {.shape = {4, 2}, .pruned = {0, 1, 2, 3}, .lengths = {20}},
  };
  ForEachSimdTarget(
      [&] {
        for (AttentionCase attention_case : kCases) {
          for (const KvDtype dtype : kDtypes) {
            attention_case.dtype = dtype;
            ExpectAgreesWithReference(attention_case, backend.get());
          }
        }
      },
      HWY_AVX3_DL);
}

TEST(AttentionTest, HeadsOfALayerHaveDtypesOfTheirOwn) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget(
      [&] {
        ExpectAgreesWithReference({.shape = {12, 6},
                                   .pruned = {3},
                                   .head_dim = 24,
                                   .dtype = KvDtype::kInt8,
                                   .head_dtypes = {{0, KvDtype::kF16},
                                                   {1, KvDtype::kInt4},
                                                   {3, KvDtype::kFp8E4m3},
                                                   {4, KvDtype::kBf16},
                                                   {5, KvDtype::kF32}},
                                   .lengths = {1, 70, 17}},
                                  backend.get());
      },
      HWY_AVX3_DL);
}

// Windows inside a block, of whole blocks and chunks, across chunks of 32, and
// wider than the sequence; rows of a tile whose windows do not overlap.
TEST(AttentionTest, AgreesWithDoublePrecisionUnderASlidingWindow) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget(
      [&] {
        for (const int window : {1, 3, 8, 16, 17, 32, 45, 64, 100, 300}) {
          for (const KvDtype dtype : kDtypes) {
            ExpectAgreesWithReference({.shape = {9, 3},
                                       .pruned = {3, 5, 7},
                                       .dtype = dtype,
                                       .window = window,
                                       .lengths = {1, 170, 40}},
                                      backend.get());
          }
        }
      },
      HWY_AVX3_DL);
}

// Sinks shorter and longer than a chunk of 32, and than the sequence.
TEST(AttentionTest, AgreesWithDoublePrecisionUnderAWindowWithASink) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget(
      [&] {
        for (const int sink : {16, 48, 64}) {
          for (const int window : {1, 17, 64, 100}) {
            for (const KvDtype dtype : {KvDtype::kBf16, KvDtype::kInt8}) {
              ExpectAgreesWithReference({.shape = {9, 3},
                                         .pruned = {3, 5, 7},
                                         .dtype = dtype,
                                         .window = window,
                                         .sink = sink,
                                         .lengths = {1, 170, 40}},
                                        backend.get());
            }
          }
        }
      },
      HWY_AVX3_DL);
}

// A token whose key and value are 0 has scales of 0.
TEST(AttentionTest, TokensMayBeOfUnlikeMagnitudes) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  for (const KvDtype dtype : kDtypes) {
    SCOPED_TRACE(std::string(KvDtypeName(dtype)));
    AttentionWorld world({.shape = {6, 2}, .dtype = dtype, .lengths = {40}}, 4);
    world.ScaleToken(0, 0.0f);
    world.ScaleToken(7, 100.0f);
    world.ScaleToken(20, 1e-3f);
    ExpectAgrees(world,
                 world.Run(world.RandomSchedule(2), {}, backend.get(), 3),
                 // Scores of thousands have few bits behind the point.
                 10 * ToleranceOf(dtype));
  }
}

TEST(AttentionTest, WhatSeesABrokenTokenIsBrokenAndNothingElse) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  for (const KvDtype dtype : kDtypes) {
    SCOPED_TRACE(std::string(KvDtypeName(dtype)));
    AttentionWorld world({.shape = {6, 2}, .dtype = dtype, .lengths = {40}}, 4);
    const Schedule schedule = world.RandomSchedule(2);
    const std::vector<float> whole = world.Run(schedule, {}, backend.get(), 3);
    world.ScaleToken(25, INFINITY);
    const std::vector<float> broken = world.Run(schedule, {}, backend.get(), 3);
    const auto width = static_cast<size_t>(world.out_width());
    for (size_t i = 0; i < whole.size(); ++i) {
      if (i / width < 25) {
        ASSERT_EQ(whole[i], broken[i]) << "token " << i / width;
      } else {
        ASSERT_FALSE(std::isfinite(broken[i])) << "token " << i / width;
      }
    }
  }
}

// The property that all scheduling rests on.
TEST(AttentionTest, ARowHasTheSameBitsHoweverTheWorkIsCut) {
  const std::unique_ptr<Backend> one = CreateCpuBackend({.threads = 1});
  const std::unique_ptr<Backend> three = CreateCpuBackend({.threads = 3});
  ForEachSimdTarget(
      [&] {
        for (int round = 0; round < 12; ++round) {
          TestRandom random(static_cast<uint32_t>(round));
          AttentionCase attention_case;
          attention_case.shape =
              round % 2 == 0 ? LayerShape{9, 3} : LayerShape{8, 2};
          if (round % 3 != 0) attention_case.pruned = {1, 2, 4};
          attention_case.head_dim = kHeadDims[RandomInt(random, 0, 8)];
          attention_case.dtype = kDtypes[round % 6];
          if (round == 5) attention_case.head_dtypes[0] = KvDtype::kInt8;
          if (round >= 6) attention_case.window = RandomInt(random, 1, 120);
          if (round >= 9) attention_case.sink = 16 * RandomInt(random, 1, 5);
          attention_case.lengths = {RandomInt(random, 1, 150),
                                    RandomInt(random, 1, 40),
                                    RandomInt(random, 100, 200)};
          const AttentionWorld world(attention_case, 5);
          AttentionPlanOptions options;
          options.chunk_tokens = 48;
          const std::vector<float> alone =
              world.Run(world.OneByOne(), options, one.get(), 6);
          for (uint32_t variant = 0; variant < 6; ++variant) {
            options.tile_rows = RandomInt(random, 1, 40);
            options.max_split_rows = RandomInt(random, 0, 20);
            const std::vector<float> out =
                world.Run(world.RandomSchedule(variant), options,
                          variant % 2 == 0 ? three.get() : one.get(), variant);
            ASSERT_EQ(std::memcmp(out.data(), alone.data(),
                                  out.size() * sizeof(float)),
                      0)
                << "round " << round << " variant " << variant;
          }
        }
      },
      HWY_AVX3_DL);
}

TEST(AttentionTest, LongDecodesAreSplitWithoutAChange) {
  const std::unique_ptr<Backend> one = CreateCpuBackend({.threads = 1});
  const std::unique_ptr<Backend> two = CreateCpuBackend({.threads = 2});
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kInt8, KvDtype::kInt4}) {
    for (const int window : {0, 700}) {
      const AttentionWorld world({.shape = {6, 2},
                                  .head_dim = 64,
                                  .dtype = dtype,
                                  .window = window,
                                  .lengths = {1100}},
                                 7);
      const Schedule schedule = {{{.sequence = 0, .rows = 1099}},
                                 {{.sequence = 0, .rows = 1}}};
      AttentionPlanOptions unsplit;
      unsplit.max_split_rows = 0;
      const std::vector<float> a = world.Run(schedule, unsplit, one.get(), 1);
      const std::vector<float> b = world.Run(schedule, {}, two.get(), 2);
      EXPECT_EQ(a, b);
      if (window == 0) ExpectAgrees(world, a, ToleranceOf(dtype));
    }
  }
}

// AVX2 and AVX-512 differ in the number of lanes alone.
TEST(AttentionTest, TargetsWithFusedMultiplyAddGiveTheSameBits) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  for (const KvDtype dtype : kDtypes) {
    const AttentionWorld world({.shape = {9, 3},
                                .pruned = {4},
                                .head_dim = 40,
                                .dtype = dtype,
                                .lengths = {100}},
                               8);
    std::vector<std::vector<float>> results;
    for (const int64_t target : SimdTargets(HWY_AVX3_DL)) {
      if (target == HWY_STATIC_TARGET) continue;
      UseSimdTarget(target);
      results.push_back(
          world.Run(world.RandomSchedule(1), SmallChunks(), backend.get(), 1));
    }
    hwy::SetSupportedTargetsForTest(0);
    for (const std::vector<float>& result : results) {
      EXPECT_EQ(result, results.front()) << KvDtypeName(dtype);
    }
  }
}

}  // namespace
}  // namespace headcount
