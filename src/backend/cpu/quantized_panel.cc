#include "backend/cpu/quantized_panel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"

namespace headcount {
namespace {

// 8 bits of 32 columns of one row.
struct EightBits {
  uint16_t scale = 0;  // float16
  int8_t q[kQuantizedCols] = {};
};

bool IsFourBits(ElementType type) {
  return type == ElementType::kQ4_0 || type == ElementType::kQ4_1 ||
         type == ElementType::kQ4_K;
}

bool KeepsBlocks(const MatrixPiece& piece) {
  return piece.first_col % kQuantizedCols == 0 &&
         piece.col % kQuantizedCols == 0 && piece.cols % kQuantizedCols == 0;
}

bool KeepsBlocks(const MatrixSource& source) {
  return std::all_of(
      source.pieces.begin(), source.pieces.end(),
      [](const MatrixPiece& piece) { return KeepsBlocks(piece); });
}

// NaN or infinite values make a scale that is not finite, and so outputs that
// are not.
EightBits Requantize(const float* values) {
  float largest = 0;
  for (int i = 0; i < kQuantizedCols; ++i) {
    const float magnitude = std::abs(values[i]);
    if (!(magnitude <= largest)) largest = magnitude;
  }
  EightBits block;
  block.scale = HalfFromFloat(largest / 127.0f);
  const float scale = FloatFromHalf(block.scale);
  if (scale == 0 || !std::isfinite(scale)) return block;
  for (int i = 0; i < kQuantizedCols; ++i) {
    const float q = std::nearbyint(values[i] / scale);
    block.q[i] = static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f));
  }
  return block;
}

EightBits ToEightBits(const QuantizedGroup& group) {
  EightBits block;
  if (group.min == 0 && group.scale[0] == group.scale[1]) {
    block.scale = HalfFromFloat(group.scale[0]);
    if (FloatFromHalf(block.scale) == group.scale[0]) {
      std::copy_n(group.q, kQuantizedCols, block.q);
      return block;
    }
  }
  float values[kQuantizedCols];
  for (int i = 0; i < kQuantizedCols; ++i) {
    values[i] =
        group.scale[i / 16] * static_cast<float>(group.q[i]) + group.min;
  }
  return Requantize(values);
}

void StoreHalf(std::byte* halves, int64_t row, uint16_t value) {
  std::memcpy(halves + 2 * row, &value, sizeof(value));
}

float LoadHalf(const std::byte* halves, int64_t row) {
  uint16_t value = 0;
  std::memcpy(&value, halves + 2 * row, sizeof(value));
  return FloatFromHalf(value);
}

// Stores 32 columns of row `row` into a block.
void StoreFourBits(const QuantizedGroup& group, int64_t row, std::byte* block) {
  // kQ4_0 is signed; eight times a float16 is another one.
  const bool is_signed =
      group.min == 0 && std::any_of(group.q, group.q + kQuantizedCols,
                                    [](int8_t q) { return q < 0; });
  const int zero = is_signed ? 8 : 0;
  const float min = group.min - static_cast<float>(zero) * group.scale[0];
  StoreHalf(block, row, HalfFromFloat(group.scale[0]));
  StoreHalf(block + kHalvesBytes, row, HalfFromFloat(min));
  std::byte* to = block + QuantizedHeaderBytes(4) + 4 * row;
  for (int step = 0; step < 4; ++step) {
    const int8_t* q = group.q + 8 * step;
    for (int i = 0; i < 4; ++i) {
      to[i] = static_cast<std::byte>((q[i] + zero) | (q[i + 4] + zero) << 4);
    }
    to += kQuantizedStepBytes;
  }
}

void StoreEightBits(const EightBits& from, int64_t row, std::byte* block) {
  StoreHalf(block, row, from.scale);
  std::byte* to = block + QuantizedHeaderBytes(8) + 4 * row;
  for (int step = 0; step < 8; ++step) {
    for (int i = 0; i < 4; ++i) {
      to[i] = static_cast<std::byte>(from.q[4 * step + i] + 128);
    }
    to += kQuantizedStepBytes;
  }
}

bool Covers(const MatrixPiece& piece, int64_t row) {
  return row >= piece.row && row < piece.row + piece.rows;
}

const std::byte* SourceRow(const MatrixPiece& piece, int64_t row) {
  return piece.data +
         ElementBytes(piece.dtype, (row - piece.row) * piece.stride);
}

// Packs matrix row `row` block by block; no piece cuts one.
void PackBlocks(const MatrixSource& source, int bits, int64_t row,
                std::byte* panel) {
  const int64_t lane = row % kQuantizedRows;
  for (const MatrixPiece& piece : source.pieces) {
    if (!Covers(piece, row)) continue;
    const std::byte* from = SourceRow(piece, row);
    const int64_t first = piece.first_col / kQuantizedCols;
    std::byte* to =
        panel + piece.col / kQuantizedCols * QuantizedBlockBytes(bits);
    for (int64_t i = 0; i < piece.cols / kQuantizedCols; ++i) {
      const QuantizedGroup group =
          ReadQuantizedGroup(piece.dtype, from, first + i);
      if (bits == 4) {
        StoreFourBits(group, lane, to);
      } else {
        StoreEightBits(ToEightBits(group), lane, to);
      }
      to += QuantizedBlockBytes(bits);
    }
  }
}

// Packs matrix row `row` in 8 bits by its values.
void PackValues(const MatrixSource& source, int64_t row,
                std::vector<float>* values, std::byte* panel) {
  const int64_t blocks = (source.cols + kQuantizedCols - 1) / kQuantizedCols;
  values->assign(static_cast<size_t>(blocks * kQuantizedCols), 0.0f);
  for (const MatrixPiece& piece : source.pieces) {
    if (!Covers(piece, row)) continue;
    Dequantize(piece.dtype, SourceRow(piece, row), piece.first_col, piece.cols,
               values->data() + piece.col);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    StoreEightBits(Requantize(values->data() + i * kQuantizedCols),
                   row % kQuantizedRows, panel + i * QuantizedBlockBytes(8));
  }
}

}  // namespace

ElementType QuantizedDtypeAtRest(const MatrixSource& source) {
  const bool four_bits = std::all_of(
      source.pieces.begin(), source.pieces.end(),
      [](const MatrixPiece& piece) { return IsFourBits(piece.dtype); });
  return four_bits && KeepsBlocks(source) ? ElementType::kQ4_1
                                          : ElementType::kQ8_0;
}

void PackQuantizedPanel(const MatrixSource& source, ElementType dtype,
                        int64_t index, std::byte* panel) {
  const int bits = dtype == ElementType::kQ4_1 ? 4 : 8;
  const bool keeps_blocks = KeepsBlocks(source);
  const int64_t first = index * kQuantizedRows;
  const int64_t end = std::min(first + kQuantizedRows, source.rows);
  std::vector<float> values;
  for (int64_t row = first; row < end; ++row) {
    if (keeps_blocks) {
      PackBlocks(source, bits, row, panel);
    } else {
      PackValues(source, row, &values, panel);
    }
  }
}

void ReadQuantizedRow(ElementType dtype, const std::byte* panel, int64_t row,
                      int64_t cols, float* out) {
  const int bits = dtype == ElementType::kQ4_1 ? 4 : 8;
  const int64_t header = QuantizedHeaderBytes(bits);
  for (int64_t col = 0; col < cols; ++col) {
    const std::byte* block =
        panel + col / kQuantizedCols * QuantizedBlockBytes(bits);
    const int64_t i = col % kQuantizedCols;
    const std::byte* steps = block + header + 4 * row + i % 4;
    if (bits == 4) {
      const int byte = std::to_integer<int>(steps[i / 8 * kQuantizedStepBytes]);
      const int q = i % 8 < 4 ? byte & 15 : byte >> 4;
      out[col] = LoadHalf(block, row) * static_cast<float>(q) +
                 LoadHalf(block + kHalvesBytes, row);
    } else {
      const int byte = std::to_integer<int>(steps[i / 4 * kQuantizedStepBytes]);
      out[col] = LoadHalf(block, row) * static_cast<float>(byte - 128);
    }
  }
}

}  // namespace headcount
