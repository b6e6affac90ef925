// Panels of quantised weights, and the quantised rows that they meet.
//
// A panel holds 32 output rows, in blocks of 32 columns (the last one filled up
// with zeros). A block of 4 bits, kQ4_1, or of 8, kQ8_0, is
//
//   float16  scale[32]        one for each row of the panel
//   float16  min[32]          only at 4 bits
//   uint8_t  q[steps][32][4]  bytes of neighbouring columns, row after row
//
// 4 bits: weight = scale * q + min. 4 steps; the low halves of the bytes of
//   step s are columns 8 s .. 8 s + 3, the high halves the next four.
// 8 bits: weight = scale * (q - 128). 8 steps of 4 columns.
//
// So a vector takes neighbouring outputs, four columns of each, and no sum
// crosses lanes. The bytes of a weight are those of Q4_1 and Q8_0 in a file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/matrix_source.h"
#include "base/element_type.h"

namespace headcount {

inline constexpr int64_t kQuantizedCols = kQuantizedGroup;  // of a block
inline constexpr int64_t kQuantizedRows = 32;               // of a panel
inline constexpr int64_t kQuantizedStepBytes = 4 * kQuantizedRows;
inline constexpr int64_t kHalvesBytes = 2 * kQuantizedRows;

// What stands before the steps of a block, and the whole block.
constexpr int64_t QuantizedHeaderBytes(int bits) {
  return bits == 4 ? 2 * kHalvesBytes : kHalvesBytes;
}
constexpr int64_t QuantizedBlockBytes(int bits) {
  return QuantizedHeaderBytes(bits) + bits * kQuantizedStepBytes;
}

// A block of a row of x. With one byte an element, x is about scale * q; with
// two, which are in two blocks, scale * (256 * q of the first + q of the
// second), and all but q is in the first. Sums are of these integers.
struct alignas(16) ActivationBlock {
  int8_t q[kQuantizedCols];
  float scale;
  float scaled_sum;  // scale * sum, for the minimum of 4 bits
  int32_t offset;    // -128 * sum, for the offset of 8 bits
};

// 16 rows of bytes of x as the tiles of AMX take them: a block of each, in
// bf16, columns in pairs that amx_matmul.cc explains. With two bytes an element
// there are two blocks, the first of which has the bytes times 256, and all but
// q.
inline constexpr int64_t kAmxRows = 16;
struct alignas(64) AmxBlock {
  uint16_t q[kAmxRows][kQuantizedCols];
  float scale[kAmxRows];
  float scaled_sum[kAmxRows];
};

// Packs panel `index` of a matrix that is quantised at rest
// (weights_at_rest.h); dtype: kQ4_1 or kQ8_0. `panel` is zero.
void PackQuantizedPanel(const MatrixSource& source, ElementType dtype,
                        int64_t index, std::byte* panel);

// Row `row` of a panel. out: [cols]
void ReadQuantizedRow(ElementType dtype, const std::byte* panel, int64_t row,
                      int64_t cols, float* out);

}  // namespace headcount
