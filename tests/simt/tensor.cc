// ldmatrix, movmatrix and mma. In all of them lane l holds elements 2 (l mod 4)
// and the next of row l / 4 of an 8x8 matrix (PTX ISA, "Matrix Fragments").
#include <algorithm>
#include <cstring>

#include "tests/simt/block.h"
#include "tests/simt/ptx.h"

namespace headcount::ptx {
namespace {

using simt::Block;
using simt::kWarpSize;
using simt::Meeting;

constexpr uint32_t kAllLanes = ~0u;
constexpr unsigned kRows = 8;  // of a matrix of 16-bit elements, and columns
constexpr size_t kRowBytes = 16;

// What a lane gives, and gets.
template <typename T>
const T& In(const Meeting& lanes, unsigned lane) {
  return *static_cast<const T*>(lanes.in[lane]);
}

template <typename T>
T& Out(const Meeting& lanes, unsigned lane) {
  return *static_cast<T*>(lanes.out[lane]);
}

struct Fragments {
  uint32_t matrices[4];
};

// A row takes four of the 32 banks; a pass reads one row from each four banks.
// Of 16 bytes for each lane, eight lanes have eight rows.
void CountPasses(const Meeting& lanes, unsigned m) {
  constexpr uintptr_t kBankGroups = 8;
  int64_t rows_of[kBankGroups] = {};
  int64_t passes = 0;
  const auto address = [&](unsigned row) {
    return reinterpret_cast<uintptr_t>(lanes.in[m * kRows + row]);
  };
  for (unsigned row = 0; row < kRows; ++row) {
    bool is_new = true;  // a row that two lanes name is read once
    for (unsigned other = 0; other < row; ++other) {
      is_new &= address(other) != address(row);
    }
    int64_t& rows = rows_of[address(row) / kRowBytes % kBankGroups];
    if (is_new) passes = std::max(passes, ++rows);
  }
  simt::Counters& counters = Block::Current().counters();
  ++counters.matrices;
  counters.matrix_passes += passes;
}

uint32_t Pair(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}

// Lanes 8m to 8m + 7 give the rows of matrix m.
template <bool kTransposed>
void ComputeLoad(const Meeting& lanes) {
  for (unsigned m = 0; m < 4; ++m) {
    CountPasses(lanes, m);
    uint16_t matrix[kRows][kRows];
    for (unsigned row = 0; row < kRows; ++row) {
      std::memcpy(matrix[row], lanes.in[m * kRows + row], kRowBytes);
    }
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      const unsigned i = lane / 4, j = lane % 4 * 2;
      Out<Fragments>(lanes, lane).matrices[m] =
          kTransposed ? Pair(matrix[j][i], matrix[j + 1][i])
                      : Pair(matrix[i][j], matrix[i][j + 1]);
    }
  }
}

void ComputeLoadShared(const Meeting& lanes) {
  for (unsigned m = 0; m < 4; ++m) CountPasses(lanes, m);
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(&Out<Fragments>(lanes, lane), lanes.in[lane], kRowBytes);
  }
}

void ComputeTranspose(const Meeting& lanes) {
  uint16_t matrix[kRows][kRows];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const uint32_t pair = In<uint32_t>(lanes, lane);
    matrix[lane / 4][lane % 4 * 2] = static_cast<uint16_t>(pair);
    matrix[lane / 4][lane % 4 * 2 + 1] = static_cast<uint16_t>(pair >> 16);
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const unsigned i = lane / 4, j = lane % 4 * 2;
    Out<uint32_t>(lanes, lane) = Pair(matrix[j][i], matrix[j + 1][i]);
  }
}

struct MmaOperands {
  uint32_t a[4], b[2];
  float d[4];
};
struct MmaResult {
  float d[4];
};

// d[16][8] += a[16][16] b[16][8]. Each register is an 8x8 matrix: a's are upper
// left, lower left, upper right, lower right; b's are upper and lower, by
// columns; d's pairs are upper and lower.
template <float (*kToFloat)(uint16_t)>
void ComputeMma(const Meeting& lanes) {
  float a[16][16], b[16][8], d[16][8];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const auto& operands = In<MmaOperands>(lanes, lane);
    const unsigned i = lane / 4, j = lane % 4 * 2;
    for (unsigned e = 0; e < 2; ++e) {
      const auto element = [e](uint32_t pair) {
        return kToFloat(static_cast<uint16_t>(pair >> (16 * e)));
      };
      a[i][j + e] = element(operands.a[0]);
      a[i + 8][j + e] = element(operands.a[1]);
      a[i][j + 8 + e] = element(operands.a[2]);
      a[i + 8][j + 8 + e] = element(operands.a[3]);
      b[j + e][i] = element(operands.b[0]);
      b[j + 8 + e][i] = element(operands.b[1]);
      d[i][j + e] = operands.d[e];
      d[i + 8][j + e] = operands.d[2 + e];
    }
  }
  for (unsigned i = 0; i < 16; ++i) {
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const unsigned i = lane / 4, j = lane % 4 * 2;
    Out<MmaResult>(
        lanes, lane) = {{d[i][j], d[i][j + 1], d[i + 8][j], d[i + 8][j + 1]}};
  }
}

template <typename Result>
Result Meet(const char* name, const void* in,
            void (*compute)(const Meeting& lanes), Where where) {
  Result result;
  Block::Current().Meet({.mask = kAllLanes,
                         .name = name,
                         .in = in,
                         .out = &result,
                         .compute = compute,
                         .where = where,
                         .aligned = true});
  return result;
}

template <void (*kCompute)(const Meeting& lanes)>
void Load(uint32_t (&matrices)[4], const void* row, const char* name,
          Where where) {
  Block::Current().CheckShared(row, kRowBytes, kRowBytes, name, where);
  Block::Current().ReadShared(row, kRowBytes, name, where);
  const auto loaded = Meet<Fragments>(name, row, kCompute, where);
  std::memcpy(matrices, loaded.matrices, sizeof(matrices));
}

template <float (*kToFloat)(uint16_t)>
void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         const char* name, Where where) {
  const MmaOperands operands = {
      {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
  const auto result =
      Meet<MmaResult>(name, &operands, ComputeMma<kToFloat>, where);
  std::memcpy(d, result.d, sizeof(d));
}

}  // namespace

void LdMatrixX4(uint32_t (&matrices)[4], const void* row, Where where) {
  Load<ComputeLoad<false>>(matrices, row, "LdMatrixX4", where);
}

void LdMatrixX4Trans(uint32_t (&matrices)[4], const void* row, Where where) {
  Load<ComputeLoad<true>>(matrices, row, "LdMatrixX4Trans", where);
}

void LoadShared16(const void* shared, uint32_t (&words)[4], Where where) {
  Load<ComputeLoadShared>(words, shared, "LoadShared16", where);
}

uint32_t MovMatrixTrans(uint32_t matrix, Where where) {
  return Meet<uint32_t>("MovMatrixTrans", &matrix, ComputeTranspose, where);
}

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
             Where where) {
  Mma<Bf16ToFloat>(d, a, b, "MmaBf16", where);
}

void MmaHalf(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
             Where where) {
  Mma<HalfToFloat>(d, a, b, "MmaHalf", where);
}

}  // namespace headcount::ptx
