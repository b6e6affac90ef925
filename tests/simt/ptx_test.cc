// The instructions of ptx.h against plain loops. Layouts are transcribed from
// the PTX ISA, element by element.
#include "backend/cuda/ptx.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/simt/every_wrapper.cuh"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

// Value of sign, `exponent_bits` and `mantissa_bits`, as IEEE has it.
double Decode(unsigned code, int exponent_bits, int mantissa_bits) {
  const unsigned mantissa = code & ((1u << mantissa_bits) - 1);
  const int exponent = int(code >> mantissa_bits & ((1u << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const bool is_negative = code >> (exponent_bits + mantissa_bits) & 1;
  const double fraction = std::ldexp(mantissa, -mantissa_bits);
  const double value = exponent == 0
                           ? std::ldexp(fraction, 1 - bias)
                           : std::ldexp(1 + fraction, exponent - bias);
  return is_negative ? -value : value;
}

constexpr unsigned kFiniteHalves = 0x7C00;
constexpr unsigned kFiniteBf16 = 0x7F80;

// The code of the nearest of all finite values, by search.
unsigned Nearest(double value, unsigned finite, int exponent_bits,
                 int mantissa_bits) {
  const double magnitude = std::fabs(value);
  unsigned low = 0,
           high = finite;  // decoded `finite` is the one after the last
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    (Decode(middle, exponent_bits, mantissa_bits) <= magnitude ? low : high) =
        middle;
  }
  const double below = magnitude - Decode(low, exponent_bits, mantissa_bits);
  const double above = Decode(high, exponent_bits, mantissa_bits) - magnitude;
  const unsigned code =
      below < above || (below == above && low % 2 == 0) ? low : high;
  return code | (std::signbit(value) ? 0x8000u : 0u);
}

unsigned NearestHalf(double value) {
  return Nearest(value, kFiniteHalves, 5, 10);
}
unsigned NearestBf16(double value) { return Nearest(value, kFiniteBf16, 8, 7); }

TEST(Numbers, DecodeAllCodesOf16Bits) {
  for (unsigned code = 0; code < 0x10000; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    if ((code & 0x7FFF) < kFiniteHalves) {
      ASSERT_EQ(ptx::HalfToFloat(bits), Decode(code, 5, 10)) << code;
    } else if ((code & 0x7FFF) > kFiniteHalves) {
      ASSERT_TRUE(std::isnan(ptx::HalfToFloat(bits))) << code;
    }
    if ((code & 0x7FFF) < kFiniteBf16) {
      ASSERT_EQ(ptx::Bf16ToFloat(bits), Decode(code, 8, 7)) << code;
    } else if ((code & 0x7FFF) > kFiniteBf16) {
      ASSERT_TRUE(std::isnan(ptx::Bf16ToFloat(bits))) << code;
    }
  }
}

TEST(Numbers, RoundToTheNearestAndTiesToEven) {
  std::mt19937 random(1);
  std::vector<float> values = {0.0f,  -0.0f,  65504.0f, 65519.0f, 65520.0f,
                               1e30f, -1e30f, 3.3e38f,  1e-7f,    1e-45f};
  for (unsigned code = 0; code + 1 < kFiniteHalves; code += 3) {
    const double value = Decode(code, 5, 10);
    values.push_back(float(value + Decode(code + 1, 5, 10)) / 2);  // a tie
    values.push_back(std::nextafter(values.back(), 1e30f));
  }
  for (int i = 0; i < 20000; ++i) {
    const float value = ptx::Bf16ToFloat(uint16_t(random() % 0x7F70));
    values.push_back(value * (1 + float(random() % 512) / 65536.0f));
  }
  for (const float value : values) {
    ASSERT_EQ(ptx::FloatToHalf(value), NearestHalf(value)) << value;
    ASSERT_EQ(ptx::FloatToBf16(value), NearestBf16(value)) << value;
    ASSERT_EQ(ptx::PackHalf(value, -value),
              NearestHalf(value) | NearestHalf(-value) << 16);
    ASSERT_EQ(ptx::PackBf16(-value, value),
              NearestBf16(-value) | NearestBf16(value) << 16);
  }
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ptx::FloatToHalf(kNan), 0x7FFF);
  EXPECT_EQ(ptx::FloatToBf16(kNan), 0x7FFF);
  EXPECT_EQ(ptx::FloatToHalf(kInfinity), 0x7C00);
  EXPECT_EQ(ptx::FloatToBf16(-kInfinity), 0xFF80);
}

TEST(Numbers, PairsOfHalvesAreSubtractedAndMultipliedWithOneRounding) {
  std::mt19937 random(2);
  const auto finite = [&] {
    return (random() % kFiniteHalves) | (random() % 2 << 15);
  };
  for (int i = 0; i < 50000; ++i) {
    const unsigned a = unsigned(finite()), b = unsigned(finite());
    const double x = Decode(a, 5, 10), y = Decode(b, 5, 10);
    const uint32_t difference = ptx::HalfSub2(a, b << 16 | b);
    ASSERT_EQ(difference & 0xFFFF, NearestHalf(x - y)) << x << ' ' << y;
    ASSERT_EQ(difference >> 16, NearestHalf(0 - y)) << y;
    const uint32_t product = ptx::HalfMul2(a << 16 | b, b << 16 | b);
    ASSERT_EQ(product >> 16, NearestHalf(x * y)) << x << ' ' << y;
    ASSERT_EQ(product & 0xFFFF, NearestHalf(y * y)) << y;
  }
}

TEST(Numbers, PairsOfBf16AreAddedWithOneRounding) {
  // All sums of what kernels add: an integer and the offset in its bits.
  for (unsigned q = 0; q < 128; ++q) {
    const uint32_t sum = ptx::Bf16Add2(0x43004300u | q << 16 | q, 0xC380C300u);
    EXPECT_EQ(ptx::Bf16ToFloat(uint16_t(sum)), float(q));
    EXPECT_EQ(ptx::Bf16ToFloat(uint16_t(sum >> 16)), float(q) - 128.0f);
  }
  // Halfway between 256 and 258, to even.
  EXPECT_EQ(ptx::Bf16ToFloat(uint16_t(ptx::Bf16Add2(0x4380, 0x3F80))), 256.0f);
}

TEST(Numbers, E4m3IsExact) {
  for (unsigned pair = 0; pair < 0x10000; ++pair) {
    const uint32_t halves = ptx::E4m3PairToHalf2(static_cast<uint16_t>(pair));
    for (int i = 0; i < 2; ++i) {
      const unsigned code = pair >> (8 * i) & 0xFF;
      const float value = ptx::HalfToFloat(uint16_t(halves >> (16 * i)));
      if ((code & 0x7F) == 0x7F) {
        ASSERT_TRUE(std::isnan(value));
      } else {
        ASSERT_EQ(value, Decode(code, 4, 3)) << code;
      }
    }
  }
}

TEST(Numbers, PowersOfTwo) {
  for (float x = -120; x < 120; x += 0.37f) {
    ASSERT_NEAR(ptx::Exp2(x) / std::exp2(double(x)), 1.0, 1e-6);
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ptx::Exp2(-kInfinity), 0.0f);
  EXPECT_EQ(ptx::Exp2(-126.5f), 0.0f);  // subnormal
  EXPECT_EQ(ptx::Exp2(1e-40f), 1.0f);
  EXPECT_EQ(ptx::Exp2(128.0f), kInfinity);
}

TEST(Numbers, PrmtPicksBytesAndSigns) {
  const uint32_t a = 0x83020100, b = 0x07868504;
  const unsigned bytes[8] = {0x00, 0x01, 0x02, 0x83, 0x04, 0x85, 0x86, 0x07};
  for (uint32_t selector = 0; selector < 0x10000; ++selector) {
    uint32_t expected = 0;
    for (int i = 3; i >= 0; --i) {
      const unsigned nibble = selector >> (4 * i) & 15;
      const unsigned byte = bytes[nibble % 8];
      const unsigned sign = byte >= 128 ? 255 : 0;
      expected = expected * 256 + (nibble >= 8 ? sign : byte);
    }
    ASSERT_EQ(ptx::Prmt(a, b, selector), expected) << selector;
  }
}

// 32 rows of 8 elements whose value is 8 row + column.
__global__ void Matrices(uint32_t* loaded, uint32_t* transposed,
                         uint32_t* moved) {
  HEADCOUNT_SHARED(shared);
  auto* elements = reinterpret_cast<uint16_t*>(shared);
  const unsigned lane = threadIdx.x;
  for (unsigned i = 0; i < 8; ++i) {
    elements[lane * 8 + i] = uint16_t(lane * 8 + i);
  }
  __syncwarp();
  uint32_t r[4];
  ptx::LdMatrixX4(r, elements + lane * 8);
  for (unsigned i = 0; i < 4; ++i) loaded[lane * 4 + i] = r[i];
  for (unsigned i = 0; i < 4; ++i) {
    moved[lane * 4 + i] = ptx::MovMatrixTrans(r[i]);
  }
  ptx::LdMatrixX4Trans(r, elements + lane * 8);
  for (unsigned i = 0; i < 4; ++i) transposed[lane * 4 + i] = r[i];
}

TEST(Matrices, ComeAsThePtxIsaSays) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Buffer<uint32_t> loaded(128), transposed(128), moved(128);
    simt::Launch(options, 1, 32, 512, Matrices, loaded.data(),
                 transposed.data(), moved.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned m = 0; m < 4; ++m) {
        const unsigned row = lane / 4, column = lane % 4 * 2;
        const auto element = [m](unsigned i, unsigned j) {
          return m * 64 + i * 8 + j;
        };
        EXPECT_EQ(loaded[lane * 4 + m],
                  element(row, column) | element(row, column + 1) << 16);
        const uint32_t turned = element(column, row) | element(column + 1, row)
                                                           << 16;
        EXPECT_EQ(transposed[lane * 4 + m], turned);
        EXPECT_EQ(moved[lane * 4 + m], turned);
      }
    }
  }
}

// Fragments of m16n8k16 as the PTX ISA gives them: element i of a lane.
unsigned RowOfA(unsigned lane, unsigned i) {
  return lane / 4 + (i < 2 || (i >= 4 && i < 6) ? 0 : 8);
}
unsigned ColumnOfA(unsigned lane, unsigned i) {
  return lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8);
}
unsigned RowOfB(unsigned lane, unsigned i) {
  return lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8);
}
unsigned ColumnOfB(unsigned lane, unsigned) { return lane / 4; }
unsigned RowOfC(unsigned lane, unsigned i) {
  return lane / 4 + (i < 2 ? 0 : 8);
}
unsigned ColumnOfC(unsigned lane, unsigned i) { return lane % 4 * 2 + (i & 1); }

template <bool kBf16>
__global__ void Multiply(const uint16_t* a, const uint16_t* b, float* c) {
  const unsigned lane = threadIdx.x;
  uint32_t a_fragment[4] = {}, b_fragment[2] = {};
  float c_fragment[4];
  for (unsigned i = 0; i < 8; ++i) {
    const uint32_t element = a[RowOfA(lane, i) * 16 + ColumnOfA(lane, i)];
    a_fragment[i / 2] |= element << (i % 2 * 16);
  }
  for (unsigned i = 0; i < 4; ++i) {
    const uint32_t element = b[RowOfB(lane, i) * 8 + ColumnOfB(lane, i)];
    b_fragment[i / 2] |= element << (i % 2 * 16);
    c_fragment[i] = c[RowOfC(lane, i) * 8 + ColumnOfC(lane, i)];
  }
  if constexpr (kBf16) {
    ptx::MmaBf16(c_fragment, a_fragment, b_fragment);
  } else {
    ptx::MmaHalf(c_fragment, a_fragment, b_fragment);
  }
  for (unsigned i = 0; i < 4; ++i) {
    c[RowOfC(lane, i) * 8 + ColumnOfC(lane, i)] = c_fragment[i];
  }
}

template <bool kBf16>
void ExpectProduct(const simt::Options& options) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto element = [](uint16_t code) {
    return double(kBf16 ? ptx::Bf16ToFloat(code) : ptx::HalfToFloat(code));
  };
  std::vector<uint16_t> a(16 * 16), b(16 * 8);
  std::vector<float> c(16 * 8);
  for (auto* matrix : {&a, &b}) {
    for (uint16_t& code : *matrix) {
      const float value = normal(random);
      code = kBf16 ? ptx::FloatToBf16(value) : ptx::FloatToHalf(value);
    }
  }
  for (float& value : c) value = normal(random);
  std::vector<double> expected(c.begin(), c.end());
  for (unsigned i = 0; i < 16; ++i) {
    for (unsigned j = 0; j < 8; ++j) {
      for (unsigned k = 0; k < 16; ++k) {
        expected[i * 8 + j] += element(a[i * 16 + k]) * element(b[k * 8 + j]);
      }
    }
  }
  simt::Launch(options, 1, 32, 0, Multiply<kBf16>, a.data(), b.data(),
               c.data());
  for (size_t i = 0; i < c.size(); ++i) EXPECT_NEAR(c[i], expected[i], 1e-5);
}

TEST(Mma, IsAProductOfMatrices) {
  for (const simt::Options& options : simt::AllOrders()) {
    ExpectProduct<true>(options);
    ExpectProduct<false>(options);
  }
}

TEST(EveryWrapper, RunsHereToo) {
  const simt::Buffer<unsigned char> in(std::vector<unsigned char>(1024, 1));
  simt::Buffer<unsigned char> out(1024);
  for (const simt::Options& options : simt::AllOrders()) {
    float sum = 0;
    simt::Launch(options, 2, 64, 1032, UseEveryWrapper,
                 EveryWrapper{in.data(), out.data(), &sum, true});
    EXPECT_NE(sum, 0.0f);
    EXPECT_EQ(out[1023], 1);
  }
}

}  // namespace
}  // namespace headcount
