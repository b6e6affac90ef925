#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
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

void ExpectAgreesWithReference(const AttentionCase& attention_case,
                               Backend* backend) {
  const AttentionWorld world(attention_case, 1);
  const std::vector<float> out =
      world.Run(world.RandomSchedule(2), SmallChunks(), backend, 3);
  const std::vector<double> expected = world.Reference();
  ASSERT_EQ(out.size(), expected.size());
  for (size_t i = 0; i < out.size(); ++i) {
    // A key on the edge between two halves may be rounded either way; the
    // reference rounds the exact one.
    const double tolerance =
        attention_case.dtype == KvDtype::kF32 ? 1e-5 : 2e-3;
    ASSERT_NEAR(out[i], expected[i], tolerance)
        << "head_dim " << attention_case.head_dim << ", element " << i;
  }
}

TEST(AttentionTest, AgreesWithDoublePrecisionForEveryHeadDim) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget([&] {
    for (const int head_dim : kHeadDims) {
      for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kF16}) {
        ExpectAgreesWithReference({.shape = {4, 2},
                                   .head_dim = head_dim,
                                   .dtype = dtype,
                                   .lengths = {1, 70, 17}},
                                  backend.get());
      }
    }
  });
}

TEST(AttentionTest, AgreesWithDoublePrecisionForRaggedGroups) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget([&] {
    // Groups of 3, 1, 2; of a KV head gone; one query head left; MQA.
    ExpectAgreesWithReference(
        {.shape = {9, 3}, .pruned = {3, 5, 7}, .lengths = {33, 50}},
        backend.get());
    ExpectAgreesWithReference(
        {.shape = {12, 4}, .pruned = {0, 1, 2, 11}, .lengths = {40}},
        backend.get());
    ExpectAgreesWithReference(
        {.shape = {4, 4}, .pruned = {0, 1, 3}, .lengths = {35}}, backend.get());
    ExpectAgreesWithReference({.shape = {20, 1}, .lengths = {90}},
                              backend.get());
  });
}

// Windows inside a block, of whole blocks and chunks, across chunks of 32, and
// wider than the sequence; rows of a tile whose windows do not overlap.
TEST(AttentionTest, AgreesWithDoublePrecisionUnderASlidingWindow) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  ForEachSimdTarget([&] {
    for (const int window : {1, 3, 8, 16, 17, 32, 45, 64, 100, 300}) {
      for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kF16}) {
        ExpectAgreesWithReference({.shape = {9, 3},
                                   .pruned = {3, 5, 7},
                                   .dtype = dtype,
                                   .window = window,
                                   .lengths = {1, 170, 40}},
                                  backend.get());
      }
    }
  });
}

// The property that all scheduling rests on.
TEST(AttentionTest, ARowHasTheSameBitsHoweverTheWorkIsCut) {
  const std::unique_ptr<Backend> one = CreateCpuBackend({.threads = 1});
  const std::unique_ptr<Backend> three = CreateCpuBackend({.threads = 3});
  ForEachSimdTarget([&] {
    for (int round = 0; round < 9; ++round) {
      TestRandom random(static_cast<uint32_t>(round));
      AttentionCase attention_case;
      attention_case.shape =
          round % 2 == 0 ? LayerShape{9, 3} : LayerShape{8, 2};
      if (round % 3 != 0) attention_case.pruned = {1, 2, 4};
      attention_case.head_dim = kHeadDims[RandomInt(random, 0, 8)];
      attention_case.dtype = round % 2 == 0 ? KvDtype::kF16 : KvDtype::kF32;
      if (round >= 6) attention_case.window = RandomInt(random, 1, 120);
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
        ASSERT_EQ(
            std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)),
            0)
            << "round " << round << " variant " << variant;
      }
    }
  });
}

TEST(AttentionTest, LongDecodesAreSplitWithoutAChange) {
  const std::unique_ptr<Backend> one = CreateCpuBackend({.threads = 1});
  const std::unique_ptr<Backend> two = CreateCpuBackend({.threads = 2});
  for (const int window : {0, 700}) {
    const AttentionWorld world({.shape = {6, 2},
                                .head_dim = 64,
                                .dtype = KvDtype::kF16,
                                .window = window,
                                .lengths = {1300}},
                               7);
    const Schedule schedule = {{{.sequence = 0, .rows = 1299}},
                               {{.sequence = 0, .rows = 1}}};
    AttentionPlanOptions unsplit;
    unsplit.max_split_rows = 0;
    const std::vector<float> a = world.Run(schedule, unsplit, one.get(), 1);
    const std::vector<float> b = world.Run(schedule, {}, two.get(), 2);
    EXPECT_EQ(a, b);
    const std::vector<double> expected = world.Reference();
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_NEAR(a[i], expected[i], 2e-3) << i;
    }
  }
}

// AVX2 and AVX-512 differ in the number of lanes alone.
TEST(AttentionTest, TargetsWithFusedMultiplyAddGiveTheSameBits) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  const AttentionWorld world({.shape = {9, 3},
                              .pruned = {4},
                              .head_dim = 40,
                              .dtype = KvDtype::kF16,
                              .lengths = {100}},
                             8);
  std::vector<std::vector<float>> results;
  for (const int64_t target : SimdTargets()) {
    if (target != HWY_AVX2 && target != HWY_AVX3) continue;
    hwy::SetSupportedTargetsForTest(target);
    results.push_back(
        world.Run(world.RandomSchedule(1), SmallChunks(), backend.get(), 1));
  }
  hwy::SetSupportedTargetsForTest(0);
  for (const std::vector<float>& result : results) {
    EXPECT_EQ(result, results.front());
  }
}

}  // namespace
}  // namespace headcount
