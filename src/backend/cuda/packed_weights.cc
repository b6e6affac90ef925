#include "backend/cuda/packed_weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "backend/weights_at_rest.h"

namespace headcount::cuda {
namespace {

static_assert(kBlockCols == kQuantizedGroup);

void StoreHalf(uint16_t value, std::byte* to) {
  std::memcpy(to, &value, sizeof(value));
}

// Stores a block of row `row` of a panel into its stage.
void StoreBlock(const EightBitBlock& block, int row, int index,
                std::byte* stage) {
  const int half = row / 8;
  for (int i = 0; i < kBlockCols; ++i) {
    const int lane = row % 8 * 4 + i / 8;
    stage[EightBitOffset(index, lane) + half * 8 + i % 8] =
        static_cast<std::byte>(block.q[i] + 128);
  }
  StoreHalf(block.scale,
            stage + EightBitScaleOffset(row % 8, index) + half * 2);
}

void StoreBlock(const FourBitBlock& block, int row, int index,
                std::byte* stage) {
  const int half = row / 8;
  for (int eight = 0; eight < kBlockCols / 8; ++eight) {
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) {
      word |= static_cast<uint32_t>(block.q[eight * 8 + i]) << NibbleShift(i);
    }
    const int lane = row % 8 * 4 + eight;
    std::memcpy(stage + FourBitOffset(index, lane) + half * 4, &word,
                sizeof(word));
  }
  std::byte* scales = stage + FourBitScaleOffset(row % 8, index);
  StoreHalf(block.scale, scales + half * 2);
  StoreHalf(block.min, scales + 4 + half * 2);
}

template <class Block>
void StoreBlocks(const std::vector<Block>& blocks, ElementType dtype, int row,
                 std::byte* panel) {
  const int in_stage = StageCols(dtype) / kBlockCols;
  int index = 0;
  for (const Block& block : blocks) {
    StoreBlock(block, row, index, panel);
    if (++index == in_stage) {
      index = 0;
      panel += StageBytes(dtype);
    }
  }
}

void StoreFloats(const std::vector<std::byte>& values, int row,
                 std::byte* panel) {
  constexpr size_t kLine = kBlockCols * sizeof(float);  // of a stage
  std::byte* to = panel + static_cast<size_t>(row) * kLine;
  for (size_t begin = 0; begin < values.size(); begin += kLine) {
    std::memcpy(to, values.data() + begin,
                std::min(kLine, values.size() - begin));
    to += StageBytes(ElementType::kF32);
  }
}

// Of 16 bits, two at a time.
void StorePairs(const std::vector<std::byte>& values, int row,
                std::byte* panel) {
  constexpr size_t kPair = 4;
  int column = 0;
  for (size_t begin = 0; begin < values.size(); begin += kPair) {
    std::memcpy(panel + PairOffset(row, column), values.data() + begin,
                std::min(kPair, values.size() - begin));
    column += 2;
    if (column == kBlockCols) {
      column = 0;
      panel += StageBytes(ElementType::kF16);
    }
  }
}

void PackPanel(const MatrixSource& source, const PackedLayout& layout,
               int64_t index, std::byte* panel) {
  const ElementType dtype = layout.dtype;
  const auto blocks =
      static_cast<size_t>((layout.cols + kBlockCols - 1) / kBlockCols);
  const int64_t first = index * kPanelRows;
  const auto rows =
      static_cast<int>(std::min<int64_t>(kPanelRows, layout.rows - first));
  for (int row = 0; row < rows; ++row) {
    if (dtype == ElementType::kQ4_1) {
      std::vector<FourBitBlock> values(blocks);
      ReadFourBitRow(source, first + row, absl::MakeSpan(values));
      StoreBlocks(values, dtype, row, panel);
    } else if (dtype == ElementType::kQ8_0) {
      std::vector<EightBitBlock> values(blocks);
      ReadEightBitRow(source, first + row, absl::MakeSpan(values));
      StoreBlocks(values, dtype, row, panel);
    } else {
      std::vector<std::byte> values(
          static_cast<size_t>(ElementBytes(dtype, layout.cols)));
      ReadFloatRow(source, dtype, first + row, values.data());
      if (dtype == ElementType::kF32) {
        StoreFloats(values, row, panel);
      } else {
        StorePairs(values, row, panel);
      }
    }
  }
}

}  // namespace

PackedLayout LayoutFor(const MatrixSource& source, Precision precision) {
  CheckCovered(source);
  return {.dtype = DtypeAtRest(source, precision),
          .rows = source.rows,
          .cols = source.cols};
}

void PackPanels(const MatrixSource& source, const PackedLayout& layout,
                int64_t first, int64_t count, std::byte* host) {
  std::memset(host, 0, static_cast<size_t>(count * layout.panel_bytes()));
  for (int64_t i = 0; i < count; ++i) {
    PackPanel(source, layout, first + i, host + i * layout.panel_bytes());
  }
}

}  // namespace headcount::cuda
