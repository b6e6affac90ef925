// The kernel that rotates queries and keys and writes pages, against a
// reference in double precision.
#include "backend/cuda/kv_write.h"

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cuda/kv_page.h"
#include "base/half.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/kv_codes.h"
#include "tests/gpu/device.h"

namespace headcount::gpu {
namespace {

constexpr int kRows = 5;
constexpr int kQueries = 3;
constexpr int kKvHeads = 2;
constexpr int kHeads = kQueries + 2 * kKvHeads;
constexpr float kEpsilon = 1e-5f;
const std::vector<int32_t> kPositions = {0, 15, 16, 33, 7};

struct WriteCase {
  int head_dim = 64;
  KvDtype dtype = KvDtype::kF16;
  bool norm = false;
  bool static_scales = false;
};

std::vector<float> Normal(size_t count, std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(*random);
  return values;
}

// A page of one KV head in a block of both, each row in a block of its own.
KvPage PageOf(const WriteCase& c, int head) {
  const int64_t tensor = kBlockTokens * KvRowBytes(c.head_dim, c.dtype);
  const int64_t offset = 96 + head * (2 * tensor + 64);
  KvPage page{.k_offset = offset,
              .v_offset = offset + tensor,
              .bytes = 2 * tensor,
              .dtype = c.dtype};
  if (IsQuantized(c.dtype)) {
    page.scale = c.static_scales ? KvScale::kStatic : KvScale::kToken;
    page.k_scales_offset = offset + 2 * tensor;
    page.v_scales_offset = offset + 2 * tensor + 32;
  }
  return page;
}

class Written {
 public:
  explicit Written(const WriteCase& c) : case_(c) {
    std::mt19937 random(static_cast<uint32_t>(c.head_dim));
    const auto dim = static_cast<size_t>(c.head_dim);
    before_ = Normal(kRows * kHeads * dim, &random);
    q_norm_ = Normal(dim, &random);
    k_norm_ = Normal(dim, &random);
    for (const int32_t position : kPositions) {
      for (size_t i = 0; i < dim / 2; ++i) {
        const double angle =
            position * std::pow(1e4, -2.0 * static_cast<double>(i) /
                                         static_cast<double>(dim));
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    Run();
  }

  const std::vector<float>& after() const { return after_; }
  const std::byte* block(int row) const {
    return arena_.data() + row * block_bytes_;
  }

  // What the head of a row is after norm and rotation.
  std::vector<double> Expected(int row, int head) const {
    const auto dim = static_cast<size_t>(case_.head_dim);
    const size_t begin =
        (static_cast<size_t>(row) * kHeads + static_cast<size_t>(head)) * dim;
    std::vector<double> x(
        before_.begin() + static_cast<std::ptrdiff_t>(begin),
        before_.begin() + static_cast<std::ptrdiff_t>(begin + dim));
    if (head >= kQueries + kKvHeads) return x;
    if (case_.norm) {
      double squares = 0;
      for (const double value : x) squares += value * value;
      const std::vector<float>& weight = head < kQueries ? q_norm_ : k_norm_;
      for (size_t i = 0; i < dim; ++i) {
        x[i] *= weight[i] /
                std::sqrt(squares / static_cast<double>(dim) + kEpsilon);
      }
    }
    std::vector<double> rotated(dim);
    for (size_t i = 0; i < dim / 2; ++i) {
      const size_t angle = static_cast<size_t>(row) * dim / 2 + i;
      rotated[i] = x[i] * cos_[angle] - x[i + dim / 2] * sin_[angle];
      rotated[i + dim / 2] = x[i + dim / 2] * cos_[angle] + x[i] * sin_[angle];
    }
    return rotated;
  }

 private:
  void Run() {
    block_bytes_ = PageOf(case_, kKvHeads).k_offset;
    arena_.assign(static_cast<size_t>(kRows * block_bytes_), std::byte{0xFF});
    std::vector<int64_t> row_blocks;
    for (int row = 0; row < kRows; ++row) {
      row_blocks.push_back(row * block_bytes_);
    }
    std::vector<cuda::KvWriteHead> heads;
    for (int head = 0; head < kKvHeads; ++head) {
      heads.push_back({.page = PageOf(case_, head),
                       .k_scale = case_.static_scales ? 0.03f : 1.0f,
                       .v_scale = case_.static_scales ? 0.04f : 1.0f});
    }
    const DeviceArray<float> qkv(before_);
    const DeviceArray<float> cos(cos_);
    const DeviceArray<float> sin(sin_);
    const DeviceArray<float> q_norm(q_norm_);
    const DeviceArray<float> k_norm(k_norm_);
    const DeviceArray<std::byte> arena(arena_);
    const DeviceArray<int32_t> positions(kPositions);
    const DeviceArray<int64_t> blocks(row_blocks);
    const DeviceArray<cuda::KvWriteHead> device_heads(heads);
    const cuda::Kernel<cuda::KvWriteParams> kernel = cuda::FindKvWriteKernel();
    const cuda::KvWriteParams params{
        .qkv = qkv.data(),
        .rows = kRows,
        .queries = kQueries,
        .kv_heads = kKvHeads,
        .head_dim = case_.head_dim,
        .cos = cos.data(),
        .sin = sin.data(),
        .q_norm = case_.norm ? q_norm.data() : nullptr,
        .k_norm = case_.norm ? k_norm.data() : nullptr,
        .norm_epsilon = kEpsilon,
        .arena = arena.data(),
        .positions = positions.data(),
        .row_blocks = blocks.data(),
        .heads = device_heads.data()};
    Launch(kernel.kernel, static_cast<int>(cuda::KvWriteGrid(params)),
           kernel.threads, kernel.shared_bytes, params);
    after_ = qkv.Read();
    arena_ = arena.Read();
  }

  WriteCase case_;
  std::vector<float> before_;
  std::vector<float> after_;
  std::vector<float> q_norm_;
  std::vector<float> k_norm_;
  std::vector<float> cos_;
  std::vector<float> sin_;
  int64_t block_bytes_ = 0;
  std::vector<std::byte> arena_;
};

double ReadElement(KvDtype dtype, const std::byte* at, int element) {
  uint16_t bits = 0;
  std::memcpy(&bits, at, KvDtypeBits(dtype) == 16 ? 2 : 1);
  const auto code = static_cast<uint8_t>(bits);
  switch (dtype) {
    case KvDtype::kF16:
      return FloatFromHalf(bits);
    case KvDtype::kBf16:
      return FloatFromBfloat16(bits);
    case KvDtype::kFp8E4m3:
      return FromFp8Code(code);
    case KvDtype::kInt8:
      return FromInt8Code(code);
    default:
      return FromInt4Code(static_cast<uint8_t>(code >> (element % 2 * 4) & 15));
  }
}

// How far a stored element may be from what it stands for, in units of the
// scale.
double Rounding(KvDtype dtype, double code) {
  switch (dtype) {
    case KvDtype::kF16:
      return std::abs(code) * 0x1p-11 + 1e-6;
    case KvDtype::kBf16:
      return std::abs(code) * 0x1p-8 + 1e-6;
    case KvDtype::kFp8E4m3:
      return std::max(std::abs(code) * 0x1p-4, 0x1p-10) + 1e-3;
    default:
      return 0.5 + 1e-3;
  }
}

void CheckRow(const WriteCase& c, const Written& written, int row, int head) {
  const bool is_value = head >= kQueries + kKvHeads;
  const KvPage page = PageOf(c, (head - kQueries) % kKvHeads);
  const std::byte* block = written.block(row);
  const int token = kPositions[static_cast<size_t>(row)] % kBlockTokens;
  const std::vector<double> expected = written.Expected(row, head);
  double scale = 1;
  if (IsQuantized(c.dtype)) {
    scale = is_value ? 0.04f : 0.03f;
    if (!c.static_scales) {
      uint16_t half = 0;
      std::memcpy(&half,
                  block +
                      (is_value ? page.v_scales_offset : page.k_scales_offset) +
                      token * 2,
                  2);
      scale = FloatFromHalf(half);
      double largest = 0;
      for (const double x : expected) largest = std::max(largest, std::abs(x));
      EXPECT_NEAR(scale, largest / LargestKvCode(c.dtype),
                  scale * 0x1p-11 + 1e-7);
    }
  }
  const auto row_bytes = static_cast<int>(KvRowBytes(c.head_dim, c.dtype));
  const double largest_code =
      IsQuantized(c.dtype) ? LargestKvCode(c.dtype) : 1e9;
  for (int i = 0; i < c.head_dim; ++i) {
    const std::byte* at = block + (is_value ? page.v_offset : page.k_offset) +
                          cuda::PageElementOffset(row_bytes, c.dtype, token, i);
    const double wanted = std::clamp(expected[static_cast<size_t>(i)] / scale,
                                     -largest_code, largest_code);
    ASSERT_NEAR(ReadElement(c.dtype, at, i), wanted, Rounding(c.dtype, wanted))
        << "row " << row << " head " << head << " element " << i;
  }
}

// Tokens that were not written keep their bytes.
int64_t BytesTouched(const WriteCase& c, const std::byte* block) {
  const int64_t bytes = PageOf(c, kKvHeads).k_offset;
  int64_t touched = 0;
  for (int64_t i = 0; i < bytes; ++i) touched += block[i] != std::byte{0xFF};
  return touched;
}

void Check(const WriteCase& c) {
  SCOPED_TRACE(absl::StrCat(
      "head_dim ", c.head_dim, " ", std::string(KvDtypeName(c.dtype)),
      c.norm ? " norm" : "", c.static_scales ? " static" : ""));
  const Written written(c);
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < kQueries; ++head) {
      const std::vector<double> expected = written.Expected(row, head);
      for (int i = 0; i < c.head_dim; ++i) {
        const auto at =
            static_cast<size_t>((row * kHeads + head) * c.head_dim + i);
        ASSERT_NEAR(written.after()[at], expected[static_cast<size_t>(i)],
                    1e-5 * (1 + std::abs(expected[static_cast<size_t>(i)])));
      }
    }
    for (int head = kQueries; head < kHeads; ++head) {
      CheckRow(c, written, row, head);
    }
    const int64_t row_bytes = int64_t{c.head_dim} * KvDtypeBits(c.dtype) / 8;
    const int64_t scale_bytes =
        IsQuantized(c.dtype) && !c.static_scales ? 2 : 0;
    EXPECT_LE(BytesTouched(c, written.block(row)),
              2 * kKvHeads * (row_bytes + scale_bytes));
  }
}

TEST(KvWriteTest, EveryDtypeAndHeadDim) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kBf16, KvDtype::kFp8E4m3,
                              KvDtype::kInt8, KvDtype::kInt4}) {
    for (const int head_dim : {32, 64, 80, 96, 128, 256}) {
      Check({.head_dim = head_dim, .dtype = dtype});
    }
  }
}

TEST(KvWriteTest, NormBeforeRotation) {
  Check({.head_dim = 64, .dtype = KvDtype::kF16, .norm = true});
  Check({.head_dim = 128, .dtype = KvDtype::kInt8, .norm = true});
}

TEST(KvWriteTest, StaticScales) {
  for (const KvDtype dtype :
       {KvDtype::kFp8E4m3, KvDtype::kInt8, KvDtype::kInt4}) {
    Check({.head_dim = 80, .dtype = dtype, .static_scales = true});
  }
}

}  // namespace
}  // namespace headcount::gpu
