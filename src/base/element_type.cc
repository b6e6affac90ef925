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

void SetScale(float scale, QuantizedGroup* group) {
  group->scale[0] = scale;
  group->scale[1] = scale;
}

// d, 32 x q
void ReadQ8(const std::byte* block, QuantizedGroup* group) {
  SetScale(Half(block), group);
  std::memcpy(group->q, block + 2, sizeof(group->q));
}

// d; m where there is a minimum; 4 bytes of fifth bits where there are any; 16
// bytes of nibbles. Without a minimum q is signed.
void ReadQ4OrQ5(bool minimum, bool five, const std::byte* block,
                QuantizedGroup* group) {
  SetScale(Half(block), group);
  if (minimum) group->min = Half(block + 2);
  const std::byte* fifth = block + (minimum ? 4 : 2);
  const std::byte* nibbles = fifth + (five ? 4 : 0);
  const int zero = minimum ? 0 : five ? 16 : 8;
  for (int i = 0; i < 32; ++i) {
    const int q = Nibble(nibbles, i) | (five ? FifthBit(fifth, i) : 0);
    group->q[i] = static_cast<int8_t>(q - zero);
  }
}

// d, dmin, 12 bytes of scales, 32 of fifth bits where there are any, 128 of
// nibbles: low ones of 32 bytes make an even group, high ones the odd one.
void ReadQ4KOrQ5K(bool five, const std::byte* block, int index,
                  QuantizedGroup* group) {
  const ScaleMin s = GroupScale(block + 4, index);
  SetScale(Half(block) * static_cast<float>(s.scale), group);
  group->min = -(Half(block + 2) * static_cast<float>(s.min));
  const std::byte* nibbles = block + (five ? 48 : 16) + index / 2 * 32;
  for (int i = 0; i < 32; ++i) {
    int q = Byte(nibbles + i) >> (index % 2 * 4) & 15;
    if (five) q |= (Byte(block + 16 + i) >> index & 1) << 4;
    group->q[i] = static_cast<int8_t>(q);
  }
}

// 128 bytes of low bits, 64 of high ones, 16 scales, d
void ReadQ6K(const std::byte* block, int index, QuantizedGroup* group) {
  const int half = index / 4;
  const int quarter = index % 4;
  for (int i = 0; i < 2; ++i) {
    const int scale = SignedByte(block + 192 + index * 2 + i);
    group->scale[i] = Half(block + 208) * static_cast<float>(scale);
  }
  const std::byte* low = block + half * 64 + quarter % 2 * 32;
  const std::byte* high = block + 128 + half * 32;
  for (int i = 0; i < 32; ++i) {
    const int q = (Byte(low + i) >> (quarter / 2 * 4) & 15) |
                  (Byte(high + i) >> (2 * quarter) & 3) << 4;
    group->q[i] = static_cast<int8_t>(q - 32);
  }
}

float ReadFloat(ElementType type, const std::byte* from) {
  if (type == ElementType::kF16) return Half(from);
  if (type == ElementType::kBf16) return FloatFromBfloat16(U16(from));
  float value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
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

QuantizedGroup ReadQuantizedGroup(ElementType type, const std::byte* row,
                                  int64_t index) {
  CHECK(IsQuantized(type)) << ElementTypeName(type);
  const ElementBlock size = BlockOf(type);
  const int64_t groups = size.elements / kQuantizedGroup;
  const std::byte* block = row + index / groups * size.bytes;
  const int part = static_cast<int>(index % groups);
  QuantizedGroup group;
  switch (type) {
    case ElementType::kQ8_0:
      ReadQ8(block, &group);
      break;
    case ElementType::kQ4_0:
      ReadQ4OrQ5(/*minimum=*/false, /*five=*/false, block, &group);
      break;
    case ElementType::kQ4_1:
      ReadQ4OrQ5(/*minimum=*/true, /*five=*/false, block, &group);
      break;
    case ElementType::kQ5_0:
      ReadQ4OrQ5(/*minimum=*/false, /*five=*/true, block, &group);
      break;
    case ElementType::kQ5_1:
      ReadQ4OrQ5(/*minimum=*/true, /*five=*/true, block, &group);
      break;
    case ElementType::kQ4_K:
      ReadQ4KOrQ5K(/*five=*/false, block, part, &group);
      break;
    case ElementType::kQ5_K:
      ReadQ4KOrQ5K(/*five=*/true, block, part, &group);
      break;
    default:
      ReadQ6K(block, part, &group);
  }
  return group;
}

void Dequantize(ElementType type, const std::byte* row, int64_t first,
                int64_t count, float* out) {
  const int64_t end = first + count;
  if (!IsQuantized(type)) {
    const int64_t bytes = BlockOf(type).bytes;
    for (int64_t i = first; i < end; ++i)
      *out++ = ReadFloat(type, row + i * bytes);
    return;
  }
  for (int64_t i = first; i < end;) {
    const QuantizedGroup group =
        ReadQuantizedGroup(type, row, i / kQuantizedGroup);
    do {
      const int64_t j = i % kQuantizedGroup;
      *out++ = group.scale[j / 16] * static_cast<float>(group.q[j]) + group.min;
      ++i;
    } while (i < end && i % kQuantizedGroup != 0);
  }
}

}  // namespace headcount
