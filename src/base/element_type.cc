#include "base/element_type.h"

#include <cstring>

#include "base/check.h"
#include "base/half.h"

namespace headcount {
namespace {

uint16_t U16(const std::byte* from) {
  uint16_t value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

float Half(const std::byte* from) { return FloatFromHalf(U16(from)); }

int Byte(const std::byte* from) { return std::to_integer<int>(*from); }

int SignedByte(const std::byte* from) {
  return static_cast<int8_t>(std::to_integer<uint8_t>(*from));
}

// Four bits of element i of 32: the low halves of 16 bytes, then the high ones.
int Nibble(const std::byte* from, int i) {
  return i < 16 ? Byte(from + i) & 15 : Byte(from + i - 16) >> 4;
}

// The fifth bit of element i, from 32 bits.
int FifthBit(const std::byte* from, int i) {
  return ((Byte(from + i / 8) >> (i % 8)) & 1) << 4;
}

// Scale and minimum of group `group` of 8, six bits each in 12 bytes.
struct ScaleMin {
  int scale = 0;
  int min = 0;
};

ScaleMin GroupScale(const std::byte* from, int group) {
  if (group < 4) return {Byte(from + group) & 63, Byte(from + group + 4) & 63};
  const int low = Byte(from + group + 4);
  return {(low & 15) | (Byte(from + group - 4) >> 6 << 4),
          (low >> 4) | (Byte(from + group) >> 6 << 4)};
}

// One element of a block. Readable rather than fast: what is fast reads whole
// blocks in its own layout.
float ElementOf(ElementType type, const std::byte* block, int i) {
  switch (type) {
    case ElementType::kF32: {
      float value = 0;
      std::memcpy(&value, block, sizeof(value));
      return value;
    }
    case ElementType::kF16:
      return Half(block);
    case ElementType::kBf16:
      return FloatFromBfloat16(U16(block));
    case ElementType::kQ8_0:  // d, 32 x q
      return Half(block) * static_cast<float>(SignedByte(block + 2 + i));
    case ElementType::kQ4_0:  // d, 16 bytes
      return Half(block) * static_cast<float>(Nibble(block + 2, i) - 8);
    case ElementType::kQ4_1:  // d, m, 16 bytes
      return Half(block) * static_cast<float>(Nibble(block + 4, i)) +
             Half(block + 2);
    case ElementType::kQ5_0: {  // d, 4 bytes of fifth bits, 16 bytes
      const int q = Nibble(block + 6, i) | FifthBit(block + 2, i);
      return Half(block) * static_cast<float>(q - 16);
    }
    case ElementType::kQ5_1: {  // d, m, 4 bytes of fifth bits, 16 bytes
      const int q = Nibble(block + 8, i) | FifthBit(block + 4, i);
      return Half(block) * static_cast<float>(q) + Half(block + 2);
    }
    case ElementType::kQ4_K:    // d, dmin, 12 bytes of scales, 128 bytes
    case ElementType::kQ5_K: {  // d, dmin, 12 of scales, 32 of fifth bits, 128
      const bool five = type == ElementType::kQ5_K;
      const int group = i / 32;
      const ScaleMin s = GroupScale(block + 4, group);
      const std::byte* nibbles = block + (five ? 48 : 16) + group / 2 * 32;
      int q = group % 2 == 0 ? Byte(nibbles + i % 32) & 15
                             : Byte(nibbles + i % 32) >> 4;
      if (five) q |= ((Byte(block + 16 + i % 32) >> group) & 1) << 4;
      return Half(block) * static_cast<float>(s.scale) * static_cast<float>(q) -
             Half(block + 2) * static_cast<float>(s.min);
    }
    case ElementType::kQ6_K: {  // 128 bytes of low bits, 64 of high ones, 16
                                // scales, d
      const int half = i / 128;
      const int quarter = i % 128 / 32;
      const int low = Byte(block + half * 64 + quarter % 2 * 32 + i % 32);
      const int high = Byte(block + 128 + half * 32 + i % 32);
      const int q = (quarter < 2 ? low & 15 : low >> 4) |
                    ((high >> (2 * quarter)) & 3) << 4;
      return Half(block + 208) *
             static_cast<float>(SignedByte(block + 192 + i / 16)) *
             static_cast<float>(q - 32);
    }
  }
  return 0;
}

}  // namespace

ElementBlock BlockOf(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return {1, 4};
    case ElementType::kF16:
    case ElementType::kBf16:
      return {1, 2};
    case ElementType::kQ8_0:
      return {32, 34};
    case ElementType::kQ4_0:
      return {32, 18};
    case ElementType::kQ4_1:
      return {32, 20};
    case ElementType::kQ5_0:
      return {32, 22};
    case ElementType::kQ5_1:
      return {32, 24};
    case ElementType::kQ4_K:
      return {256, 144};
    case ElementType::kQ5_K:
      return {256, 176};
    case ElementType::kQ6_K:
      return {256, 210};
  }
  return {};
}

std::string_view ElementTypeName(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return "F32";
    case ElementType::kF16:
      return "F16";
    case ElementType::kBf16:
      return "BF16";
    case ElementType::kQ8_0:
      return "Q8_0";
    case ElementType::kQ4_0:
      return "Q4_0";
    case ElementType::kQ4_1:
      return "Q4_1";
    case ElementType::kQ5_0:
      return "Q5_0";
    case ElementType::kQ5_1:
      return "Q5_1";
    case ElementType::kQ4_K:
      return "Q4_K";
    case ElementType::kQ5_K:
      return "Q5_K";
    case ElementType::kQ6_K:
      return "Q6_K";
  }
  return "?";
}

int64_t ElementBytes(ElementType type, int64_t elements) {
  const ElementBlock block = BlockOf(type);
  CHECK(elements % block.elements == 0)
      << elements << " elements of " << ElementTypeName(type);
  return elements / block.elements * block.bytes;
}

void Dequantize(ElementType type, const std::byte* row, int64_t first,
                int64_t count, float* out) {
  const ElementBlock block = BlockOf(type);
  for (int64_t i = first; i < first + count; ++i) {
    *out++ = ElementOf(type, row + i / block.elements * block.bytes,
                       static_cast<int>(i % block.elements));
  }
}

}  // namespace headcount
