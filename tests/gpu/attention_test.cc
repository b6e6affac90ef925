// The attention kernels against a reference in double precision, over random
// problems: on a GPU, or in the emulator.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/attention_world.h"
#include "tests/gpu/device.h"

namespace headcount::gpu {
namespace {

// Relative to values as stored: what the products round.
double Tolerance(const AttentionCase& attention_case) {
  if (attention_case.dtype == KvDtype::kInt4) return 1e-2;
  if (KvDtypeBits(attention_case.dtype) == 8) return 5e-3;
  return attention_case.dtype == KvDtype::kF16 ? 2e-3 : 5e-3;
}

void Check(const AttentionCase& attention_case) {
  SCOPED_TRACE(Describe(attention_case));
  EXPECT_LE(AttentionWorld(attention_case).RelativeError(),
            Tolerance(attention_case));
}

const std::vector<KvDtype>& Dtypes() {
  static const std::vector<KvDtype> dtypes = {KvDtype::kF16, KvDtype::kBf16,
                                              KvDtype::kFp8E4m3, KvDtype::kInt8,
                                              KvDtype::kInt4};
  return dtypes;
}

const std::vector<int>& HeadDims() {
  static const std::vector<int> head_dims = {32, 64, 80, 96, 128, 256};
  return head_dims;
}

const std::vector<std::vector<int>>& Groups() {
  static const std::vector<std::vector<int>> groups = {std::vector<int>(12, 1),
                                                       std::vector<int>(8, 4),
                                                       std::vector<int>(3, 3),
                                                       {4},
                                                       {3, 1},
                                                       {3, 2, 1},
                                                       {16},
                                                       {}};
  return groups;
}

const std::vector<SequenceCase>& Decoding() {
  static const std::vector<SequenceCase> sequences = {
      {0, 1}, {16, 1}, {63, 1}, {332, 1}, {699, 1}};
  return sequences;
}

const std::vector<SequenceCase>& Mixed() {
  static const std::vector<SequenceCase> sequences = {
      {0, 1}, {0, 37}, {210, 1}, {100, 50}, {15, 2}};
  return sequences;
}

TEST(DecodeAttentionTest, EveryDtypeAndHeadDim) {
  for (const KvDtype dtype : Dtypes()) {
    for (const int head_dim : HeadDims()) {
      Check({.groups = {3, 1},
             .head_dim = head_dim,
             .dtype = dtype,
             .sequences = Decoding()});
    }
  }
}

TEST(DecodeAttentionTest, EveryGroup) {
  for (const KvDtype dtype : Dtypes()) {
    for (const std::vector<int>& groups : Groups()) {
      Check({.groups = groups,
             .head_dim = 64,
             .dtype = dtype,
             .sequences = Decoding(),
             .workers = 11});
    }
  }
}

TEST(DecodeAttentionTest, SixteenQueriesOnAPage) {
  for (const KvDtype dtype : Dtypes()) {
    for (const int head_dim : HeadDims()) {
      Check({.groups = {16, 9, 1},
             .head_dim = head_dim,
             .dtype = dtype,
             .sequences = {{99, 1}, {400, 1}}});
    }
  }
}

TEST(DecodeAttentionTest, StaticScales) {
  for (const KvDtype dtype :
       {KvDtype::kFp8E4m3, KvDtype::kInt8, KvDtype::kInt4}) {
    for (const int head_dim : {64, 128}) {
      Check({.groups = {4, 2},
             .head_dim = head_dim,
             .dtype = dtype,
             .scale = KvScale::kStatic,
             .sequences = Decoding()});
    }
  }
}

TEST(DecodeAttentionTest, Windows) {
  for (const KvDtype dtype : Dtypes()) {
    for (const int window : {1, 16, 100, 500}) {
      Check({.groups = {3, 2},
             .head_dim = 64,
             .dtype = dtype,
             .sequences = Decoding(),
             .window = window});
    }
  }
}

TEST(DecodeAttentionTest, WindowsWithSinks) {
  for (const KvDtype dtype : {KvDtype::kBf16, KvDtype::kInt8}) {
    for (const int sink : {16, 64}) {
      for (const int window : {1, 100, 500}) {
        Check({.groups = {3, 2},
               .head_dim = 64,
               .dtype = dtype,
               .sequences = Decoding(),
               .window = window,
               .sink = sink});
      }
    }
  }
}

TEST(DecodeAttentionTest, Activations) {
  for (const cuda::Activation activation :
       {cuda::Activation::kF16, cuda::Activation::kBf16}) {
    for (const KvDtype dtype : Dtypes()) {
      Check({.groups = {3, 2},
             .head_dim = 128,
             .dtype = dtype,
             .sequences = Decoding(),
             .activation = activation});
    }
  }
}

TEST(DecodeAttentionTest, AnyNumberOfWorkers) {
  for (const int workers : {1, 2, 5, 40, 300}) {
    Check({.groups = {4, 4},
           .head_dim = 128,
           .dtype = KvDtype::kInt8,
           .sequences = Decoding(),
           .workers = workers});
  }
}

// What kernels do below sm_90. A GPU has what it was compiled for.
TEST(DecodeAttentionTest, WithoutBulkCopies) {
  if (!IsEmulator()) GTEST_SKIP() << "the architecture decides";
  for (const KvDtype dtype : Dtypes()) {
    for (const int head_dim : {64, 80, 128, 256}) {
      Check({.groups = {3, 1},
             .head_dim = head_dim,
             .dtype = dtype,
             .sequences = Decoding(),
             .bulk = false});
    }
  }
}

TEST(PrefillAttentionTest, WithoutBulkCopies) {
  if (!IsEmulator()) GTEST_SKIP() << "the architecture decides";
  for (const KvDtype dtype : Dtypes()) {
    for (const int head_dim : {64, 128, 256}) {
      Check({.groups = {3, 1},
             .head_dim = head_dim,
             .dtype = dtype,
             .sequences = Mixed(),
             .bulk = false});
    }
  }
}

TEST(PrefillAttentionTest, EveryDtypeAndHeadDim) {
  for (const KvDtype dtype : Dtypes()) {
    for (const int head_dim : HeadDims()) {
      Check({.groups = {3, 1},
             .head_dim = head_dim,
             .dtype = dtype,
             .sequences = Mixed(),
             .workers = 1});
    }
  }
}

TEST(PrefillAttentionTest, EveryGroup) {
  for (const std::vector<int>& groups : Groups()) {
    Check({.groups = groups,
           .head_dim = 64,
           .dtype = KvDtype::kBf16,
           .sequences = Mixed()});
  }
}

TEST(PrefillAttentionTest, SplitBehindALongPast) {
  for (const KvDtype dtype : Dtypes()) {
    Check({.groups = {4, 2},
           .head_dim = 64,
           .dtype = dtype,
           .sequences = {{500, 9}, {777, 3}},
           .workers = 40,
           .min_tokens = 16});
  }
}

TEST(PrefillAttentionTest, Windows) {
  for (const int window : {1, 16, 70}) {
    Check({.groups = {2, 1},
           .head_dim = 64,
           .dtype = KvDtype::kF16,
           .sequences = Mixed(),
           .window = window});
  }
}

TEST(PrefillAttentionTest, WindowsWithSinks) {
  for (const int sink : {16, 64}) {
    for (const int window : {1, 16, 70}) {
      Check({.groups = {2, 1},
             .head_dim = 64,
             .dtype = KvDtype::kF16,
             .sequences = Mixed(),
             .window = window,
             .sink = sink});
    }
  }
}

TEST(PrefillAttentionTest, StaticScales) {
  for (const KvDtype dtype :
       {KvDtype::kFp8E4m3, KvDtype::kInt8, KvDtype::kInt4}) {
    Check({.groups = {4, 2},
           .head_dim = 128,
           .dtype = dtype,
           .scale = KvScale::kStatic,
           .sequences = Mixed()});
  }
}

TEST(PrefillAttentionTest, EncodersSeeAll) {
  Check({.groups = {1, 1, 1},
         .head_dim = 64,
         .dtype = KvDtype::kF16,
         .sequences = {{0, 40}, {0, 129}, {0, 7}},
         .causal = false,
         .workers = 1});
}

}  // namespace
}  // namespace headcount::gpu
