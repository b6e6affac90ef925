#include "backend/cpu/quantized_panel.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "backend/weights_at_rest.h"
#include "base/half.h"

namespace headcount {
namespace {

void StoreHalf(std::byte* halves, int64_t row, uint16_t value) {
  std::memcpy(halves + 2 * row, &value, sizeof(value));
}

float LoadHalf(const std::byte* halves, int64_t row) {
  uint16_t value = 0;
  std::memcpy(&value, halves + 2 * row, sizeof(value));
  return FloatFromHalf(value);
}

// Stores 32 columns of row `row` into a block.
void StoreFourBits(const FourBitBlock& from, int64_t row, std::byte* block) {
  StoreHalf(block, row, from.scale);
  StoreHalf(block + kHalvesBytes, row, from.min);
  std::byte* to = block + QuantizedHeaderBytes(4) + 4 * row;
  for (int step = 0; step < 4; ++step) {
    const uint8_t* q = from.q + 8 * step;
    for (int i = 0; i < 4; ++i) {
      to[i] = static_cast<std::byte>(q[i] | q[i + 4] << 4);
    }
    to += kQuantizedStepBytes;
  }
}

void StoreEightBits(const EightBitBlock& from, int64_t row, std::byte* block) {
  StoreHalf(block, row, from.scale);
  std::byte* to = block + QuantizedHeaderBytes(8) + 4 * row;
  for (int step = 0; step < 8; ++step) {
    for (int i = 0; i < 4; ++i) {
      to[i] = static_cast<std::byte>(from.q[4 * step + i] + 128);
    }
    to += kQuantizedStepBytes;
  }
}

}  // namespace

void PackQuantizedPanel(const MatrixSource& source, ElementType dtype,
                        int64_t index, std::byte* panel) {
  const int64_t first = index * kQuantizedRows;
  const int64_t end = std::min(first + kQuantizedRows, source.rows);
  const auto blocks =
      static_cast<size_t>((source.cols + kQuantizedCols - 1) / kQuantizedCols);
  std::vector<FourBitBlock> four_bits;
  std::vector<EightBitBlock> eight_bits;
  for (int64_t row = first; row < end; ++row) {
    std::byte* to = panel;
    if (dtype == ElementType::kQ4_1) {
      four_bits.resize(blocks);
      ReadFourBitRow(source, row, absl::MakeSpan(four_bits));
      for (const FourBitBlock& block : four_bits) {
        StoreFourBits(block, row - first, to);
        to += QuantizedBlockBytes(4);
      }
    } else {
      eight_bits.resize(blocks);
      ReadEightBitRow(source, row, absl::MakeSpan(eight_bits));
      for (const EightBitBlock& block : eight_bits) {
        StoreEightBits(block, row - first, to);
        to += QuantizedBlockBytes(8);
      }
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
