// What every backend makes of a weight matrix before it lays it out: the dtype
// at rest, and rows read from the pieces in it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "backend/backend.h"
#include "backend/matrix_source.h"
#include "base/element_type.h"

namespace headcount {

// 32 columns of one row. Scales and minima are float16.
struct FourBitBlock {  // weight = scale * q + min
  uint16_t scale = 0;
  uint16_t min = 0;
  uint8_t q[kQuantizedGroup] = {};  // below 16
};
struct EightBitBlock {  // weight = scale * q
  uint16_t scale = 0;
  int8_t q[kQuantizedGroup] = {};  // at least -127 where it was rounded
};

// CHECKs that the pieces lie in the matrix and have as many elements as it.
void CheckCovered(const MatrixSource& source);

// Quantised pieces, unless kExact is asked for: kQ4_1 where that is exact but
// for the rounding of scales to 16 bits: pieces are kQ4_0, kQ4_1 or kQ4_K, and
// none cuts a block of 32 columns. Else kQ8_0: kQ8_0 and kQ5_0 are exact, and
// whatever has a minimum, two scales or a cut block is rounded to the nearest
// of 255 multiples of its largest / 127. Floats keep a dtype that all of them
// have. Anything else is kF32.
ElementType DtypeAtRest(const MatrixSource& source, Precision precision);

// Row `row` of a matrix whose dtype at rest is a float: source.cols elements.
void ReadFloatRow(const MatrixSource& source, ElementType dtype, int64_t row,
                  std::byte* out);
// Of one that is kQ4_1 or kQ8_0: blocks of 32 columns, the last one filled up
// with zeros.
void ReadFourBitRow(const MatrixSource& source, int64_t row,
                    absl::Span<FourBitBlock> out);
void ReadEightBitRow(const MatrixSource& source, int64_t row,
                     absl::Span<EightBitBlock> out);

}  // namespace headcount
