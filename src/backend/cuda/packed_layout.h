// How a weight matrix lies in device memory.
//
// 16 output rows make a panel, which tensor cores take as one side of a tile;
// its columns come in stages, one after the other, so that a panel is read from
// front to back. Rows and columns are filled up with zeros. A stage of
//
//   kF32         [16][32] floats
//   kF16, kBf16  [2][32][2][2][2] elements: columns 8 c + 4 i .. 8 c + 4 i + 3
//                for i, lane; pair of columns, half, column
//   kQ8_0        q[2][32][2][8]   64 columns: block, lane, half, column
//                scale[8][2][2]   row, block, half
//   kQ4_1        q[2][32][2][2]   128 columns: block / 2, lane, block % 2, half
//                {scale[2], min[2]}[8][4]   row, block; half
//
// where a block is 32 columns, halves are rows r and r + 8, and lane 4 r + c
// has columns 8 c .. 8 c + 7 of both. A q of 8 bits is a byte, q + 128. Of 4
// bits they come as words of eight columns, the even ones in nibbles 0 to 3 and
// the odd ones in nibbles 4 to 7.
// Scales and minima are float16: weight = scale * q, or scale * q + min.
//
// So a lane loads 16 bytes at a time, 512 in a row by a warp, and has in them
// what its tensor core takes from it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/element_type.h"

namespace headcount::cuda {

inline constexpr int kPanelRows = 16;
inline constexpr int kBlockCols = 32;  // that have one scale
// Of quantised weights, in a stage.
inline constexpr int kStageWeightBytes = 1024;

constexpr int StageCols(ElementType dtype) {
  return dtype == ElementType::kQ4_1   ? 128
         : dtype == ElementType::kQ8_0 ? 64
                                       : kBlockCols;
}
constexpr int StageBytes(ElementType dtype) {
  return dtype == ElementType::kF32    ? 2048
         : dtype == ElementType::kQ4_1 ? kStageWeightBytes + 256
         : dtype == ElementType::kQ8_0 ? kStageWeightBytes + 64
                                       : 1024;
}

// Offset in a stage of 16-bit elements of an even column and the next.
constexpr int PairOffset(int row, int column) {
  const int lane = row % 8 * 4 + column / 8;
  return column % 8 / 4 * 512 + lane * 16 + column % 4 / 2 * 8 + row / 8 * 4;
}
// Offsets in a stage of the quantised columns that a lane loads together, and
// of what goes with a row below 8 and the one 8 further.
constexpr int EightBitOffset(int block, int lane) {
  return block * 512 + lane * 16;
}
constexpr int FourBitOffset(int block, int lane) {
  return block / 2 * 512 + lane * 16 + block % 2 * 8;
}
constexpr int EightBitScaleOffset(int row, int block) {
  return kStageWeightBytes + (row * 2 + block) * 4;
}
constexpr int FourBitScaleOffset(int row, int block) {
  return kStageWeightBytes + (row * 4 + block) * 8;
}
// Where eight columns have number `column`.
constexpr int NibbleShift(int column) {
  return column / 2 * 4 + column % 2 * 16;
}

struct PackedLayout {
  ElementType dtype = ElementType::kF32;  // a float, kQ4_1 or kQ8_0
  int64_t rows = 0;
  int64_t cols = 0;

  constexpr int64_t panels() const {
    return (rows + kPanelRows - 1) / kPanelRows;
  }
  constexpr int64_t stages() const {
    return (cols + StageCols(dtype) - 1) / StageCols(dtype);
  }
  constexpr int64_t panel_bytes() const { return stages() * StageBytes(dtype); }
  // Resident, padding included. Memory starts at a multiple of 16.
  constexpr int64_t bytes() const { return panels() * panel_bytes(); }
};

}  // namespace headcount::cuda
