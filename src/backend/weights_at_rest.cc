#include "backend/weights_at_rest.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/half.h"

namespace headcount {
namespace {

constexpr int64_t kCols = kQuantizedGroup;  // of a block

bool IsFourBits(ElementType type) {
  return type == ElementType::kQ4_0 || type == ElementType::kQ4_1 ||
         type == ElementType::kQ4_K;
}

bool KeepsBlocks(const MatrixPiece& piece) {
  return piece.first_col % kCols == 0 && piece.col % kCols == 0 &&
         piece.cols % kCols == 0;
}

bool KeepsBlocks(const MatrixSource& source) {
  return std::all_of(
      source.pieces.begin(), source.pieces.end(),
      [](const MatrixPiece& piece) { return KeepsBlocks(piece); });
}

// Of quantised pieces.
ElementType QuantizedDtypeAtRest(const MatrixSource& source) {
  const bool four_bits = std::all_of(
      source.pieces.begin(), source.pieces.end(),
      [](const MatrixPiece& piece) { return IsFourBits(piece.dtype); });
  return four_bits && KeepsBlocks(source) ? ElementType::kQ4_1
                                          : ElementType::kQ8_0;
}

FourBitBlock ToFourBits(const QuantizedGroup& group) {
  // kQ4_0 is signed; eight times a float16 is another one.
  const bool is_signed =
      group.min == 0 &&
      std::any_of(group.q, group.q + kCols, [](int8_t q) { return q < 0; });
  const int zero = is_signed ? 8 : 0;
  FourBitBlock block;
  block.scale = HalfFromFloat(group.scale[0]);
  block.min =
      HalfFromFloat(group.min - static_cast<float>(zero) * group.scale[0]);
  for (int i = 0; i < kCols; ++i) {
    block.q[i] = static_cast<uint8_t>(group.q[i] + zero);
  }
  return block;
}

// NaN or infinite values make a scale that is not finite, and so outputs that
// are not.
EightBitBlock Requantize(const float* values) {
  float largest = 0;
  for (int i = 0; i < kCols; ++i) {
    const float magnitude = std::abs(values[i]);
    if (!(magnitude <= largest)) largest = magnitude;
  }
  EightBitBlock block;
  block.scale = HalfFromFloat(largest / 127.0f);
  const float scale = FloatFromHalf(block.scale);
  if (scale == 0 || !std::isfinite(scale)) return block;
  for (int i = 0; i < kCols; ++i) {
    const float q = std::nearbyint(values[i] / scale);
    block.q[i] = static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f));
  }
  return block;
}

EightBitBlock ToEightBits(const QuantizedGroup& group) {
  EightBitBlock block;
  if (group.min == 0 && group.scale[0] == group.scale[1]) {
    block.scale = HalfFromFloat(group.scale[0]);
    if (FloatFromHalf(block.scale) == group.scale[0]) {
      std::copy_n(group.q, kCols, block.q);
      return block;
    }
  }
  float values[kCols];
  for (int i = 0; i < kCols; ++i) {
    values[i] =
        group.scale[i / 16] * static_cast<float>(group.q[i]) + group.min;
  }
  return Requantize(values);
}

// Calls use(piece, row of it) for the pieces that hold a part of matrix row
// `row`.
template <class Use>
void ForEachPiece(const MatrixSource& source, int64_t row, Use&& use) {
  for (const MatrixPiece& piece : source.pieces) {
    if (row < piece.row || row >= piece.row + piece.rows) continue;
    use(piece, piece.data +
                   ElementBytes(piece.dtype, (row - piece.row) * piece.stride));
  }
}

// The blocks of a row none of whose pieces cuts one.
template <class Block>
void ReadBlocks(const MatrixSource& source, int64_t row,
                Block (*convert)(const QuantizedGroup&),
                absl::Span<Block> out) {
  ForEachPiece(
      source, row, [&](const MatrixPiece& piece, const std::byte* from) {
        const int64_t first = piece.first_col / kCols;
        Block* to = out.data() + piece.col / kCols;
        for (int64_t i = 0; i < piece.cols / kCols; ++i) {
          to[i] = convert(ReadQuantizedGroup(piece.dtype, from, first + i));
        }
      });
}

void CheckBlocks(const MatrixSource& source, size_t blocks) {
  CHECK(static_cast<int64_t>(blocks) == (source.cols + kCols - 1) / kCols)
      << blocks << " blocks of " << source.cols << " columns";
}

}  // namespace

void CheckCovered(const MatrixSource& source) {
  int64_t elements = 0;
  for (const MatrixPiece& piece : source.pieces) {
    CHECK(piece.row >= 0 && piece.col >= 0 &&
          piece.row + piece.rows <= source.rows &&
          piece.col + piece.cols <= source.cols)
        << "piece at " << piece.row << ", " << piece.col;
    elements += piece.rows * piece.cols;
  }
  CHECK(elements == source.rows * source.cols)
      << "pieces hold " << elements << " elements of a matrix of "
      << source.rows << " x " << source.cols;
}

ElementType DtypeAtRest(const MatrixSource& source, Precision precision) {
  CHECK(!source.pieces.empty());
  const ElementType first = source.pieces.front().dtype;
  const auto all = [&source](auto predicate) {
    return std::all_of(
        source.pieces.begin(), source.pieces.end(),
        [&](const MatrixPiece& piece) { return predicate(piece.dtype); });
  };
  if (all([](ElementType type) { return IsQuantized(type); }) &&
      precision == Precision::kFast) {
    return QuantizedDtypeAtRest(source);
  }
  const bool same = all([first](ElementType type) { return type == first; });
  return same && !IsQuantized(first) ? first : ElementType::kF32;
}

void ReadFloatRow(const MatrixSource& source, ElementType dtype, int64_t row,
                  std::byte* out) {
  const int64_t element = ElementBytes(dtype, 1);
  std::vector<float> values;
  ForEachPiece(source, row,
               [&](const MatrixPiece& piece, const std::byte* from) {
                 std::byte* to = out + piece.col * element;
                 const auto bytes = static_cast<size_t>(piece.cols * element);
                 if (piece.dtype == dtype) {
                   std::memcpy(to, from + piece.first_col * element, bytes);
                   return;
                 }
                 CHECK(dtype == ElementType::kF32) << ElementTypeName(dtype);
                 values.resize(static_cast<size_t>(piece.cols));
                 Dequantize(piece.dtype, from, piece.first_col, piece.cols,
                            values.data());
                 std::memcpy(to, values.data(), bytes);
               });
}

void ReadFourBitRow(const MatrixSource& source, int64_t row,
                    absl::Span<FourBitBlock> out) {
  CheckBlocks(source, out.size());
  ReadBlocks(source, row, ToFourBits, out);
}

void ReadEightBitRow(const MatrixSource& source, int64_t row,
                     absl::Span<EightBitBlock> out) {
  CheckBlocks(source, out.size());
  if (KeepsBlocks(source)) {
    ReadBlocks(source, row, ToEightBits, out);
    return;
  }
  std::vector<float> values(out.size() * kCols);
  ForEachPiece(source, row,
               [&](const MatrixPiece& piece, const std::byte* from) {
                 Dequantize(piece.dtype, from, piece.first_col, piece.cols,
                            values.data() + piece.col);
               });
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = Requantize(values.data() + i * kCols);
  }
}

}  // namespace headcount
