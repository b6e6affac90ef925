// How the elements of a weight tensor are stored, in files and in memory.
//
// Elements come in blocks: one float each, or 32 or 256 quantised ones with
// their scales. A row of a tensor is a whole number of blocks. The quantised
// layouts are those of GGML (ggml/src/ggml-common.h, struct block_*).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace headcount {

enum class ElementType : uint8_t {
  kF32,
  kF16,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

// Elements in a block, and the bytes that it takes.
struct ElementBlock {
  int64_t elements = 1;
  int64_t bytes = 0;
};

ElementBlock BlockOf(ElementType type);

inline bool IsQuantized(ElementType type) { return type > ElementType::kBf16; }

// "F32", "Q4_K": as the file formats spell it.
std::string_view ElementTypeName(ElementType type);

// Bytes of `elements` neighbours, a whole number of blocks (CHECKed); the
// caller knows that they do not overflow.
int64_t ElementBytes(ElementType type, int64_t elements);

// 32 quantised neighbours as integers: element i is
// scale[i / 16] * q[i] + min, where the product is exact in float32.
struct QuantizedGroup {
  float scale[2] = {};
  float min = 0;
  int8_t q[32] = {};
};
inline constexpr int64_t kQuantizedGroup = 32;

// Elements [32 index, 32 index + 32) of a row that starts at `row` (of any
// alignment). q is in [0, 16) for kQ4_1 and kQ4_K, in [-8, 8) for kQ4_0.
// CHECKs that `type` is quantised.
QuantizedGroup ReadQuantizedGroup(ElementType type, const std::byte* row,
                                  int64_t index);

// Exact values of `count` neighbours, from element `first` of a row that starts
// at `row` (of any alignment). out: [count].
void Dequantize(ElementType type, const std::byte* row, int64_t first,
                int64_t count, float* out);

}  // namespace headcount
