#include <algorithm>
#include <cmath>

#include "backend/cuda/reduce.cuh"
#include "backend/cuda/row_kernels.h"

namespace headcount::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr int kSwiGluElements = 4;  // of a thread

DEVICE void WaitForInputs() {
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
}

DEVICE int Thread() { return static_cast<int>(threadIdx.x); }
DEVICE int64_t Row() { return static_cast<int64_t>(blockIdx.x); }

DEVICE float HalfAt(const std::byte* from) {
  return ptx::HalfToFloat(*reinterpret_cast<const uint16_t*>(from));
}

// Element (row, column) of a stage.
DEVICE float StageElement(const std::byte* stage, ElementType dtype, int row,
                          int column) {
  const int half = row / 8;
  const int block = column / kBlockCols;
  const int lane = row % 8 * 4 + column % kBlockCols / 8;
  if (dtype == ElementType::kQ8_0) {
    const std::byte* q = stage + EightBitOffset(block, lane) + half * 8;
    const auto value =
        static_cast<float>(static_cast<int>(q[column % 8]) - 128);
    return value *
           HalfAt(stage + EightBitScaleOffset(row % 8, block) + half * 2);
  }
  if (dtype == ElementType::kQ4_1) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(
        stage + FourBitOffset(block, lane) + half * 4);
    const auto q = static_cast<float>(word >> NibbleShift(column % 8) & 15);
    const std::byte* scales = stage + FourBitScaleOffset(row % 8, block);
    return HalfAt(scales + half * 2) * q + HalfAt(scales + 4 + half * 2);
  }
  if (dtype == ElementType::kF32) {
    return reinterpret_cast<const float*>(stage)[row * kBlockCols + column];
  }
  const uint16_t bits = reinterpret_cast<const uint16_t*>(
      stage + PairOffset(row, column))[column % 2];
  return dtype == ElementType::kF16 ? ptx::HalfToFloat(bits)
                                    : ptx::Bf16ToFloat(bits);
}

__global__ void __launch_bounds__(kRowThreads)
    Embed(const __grid_constant__ EmbedParams params) {
  WaitForInputs();
  const PackedLayout& layout = params.layout;
  const int64_t token = params.tokens[Row()];
  const std::byte* panel =
      params.weights + token / kPanelRows * layout.panel_bytes();
  const auto row = static_cast<int>(token % kPanelRows);
  const int stage_cols = StageCols(layout.dtype);
  const auto cols = static_cast<int>(layout.cols);
  float* out = params.out + Row() * layout.cols;
  for (int col = Thread(); col < cols; col += kRowThreads) {
    const std::byte* stage = panel + static_cast<int64_t>(col / stage_cols) *
                                         StageBytes(layout.dtype);
    out[col] = StageElement(stage, layout.dtype, row, col % stage_cols);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    RmsNorm(const __grid_constant__ RmsNormParams params) {
  HEADCOUNT_SHARED(shared);
  WaitForInputs();
  const float* x = params.x + Row() * params.cols;
  float* out = params.out + Row() * params.cols;
  float squares = 0;
#pragma unroll 4
  for (int i = Thread(); i < params.cols; i += kRowThreads) {
    squares += x[i] * x[i];
  }
  squares = BlockReduce<kRowThreads>(squares, reinterpret_cast<float*>(shared),
                                     [](float a, float b) { return a + b; });
  const float mean = squares / static_cast<float>(params.cols);
  const float scale = 1.0f / sqrtf(mean + params.epsilon);
#pragma unroll 4
  for (int i = Thread(); i < params.cols; i += kRowThreads) {
    out[i] = x[i] * scale * params.weight[i];
  }
}

__global__ void __launch_bounds__(kRowThreads)
    SwiGlu(const __grid_constant__ SwiGluParams params) {
  WaitForInputs();
  const int64_t count = static_cast<int64_t>(params.rows) * params.width;
  const int64_t first = Row() * (kRowThreads * kSwiGluElements) + Thread();
#pragma unroll
  for (int i = 0; i < kSwiGluElements; ++i) {
    const int64_t element = first + i * kRowThreads;
    if (element >= count) return;
    const float* gate =
        params.x + element / params.width * params.width + element;
    const float up = gate[params.width];
    // silu(g) = g / (1 + 2^(-g log2(e)))
    const float denominator = 1.0f + ptx::Exp2(*gate * -1.44269504f);
    params.out[element] = *gate / denominator * up;
  }
}

__global__ void __launch_bounds__(kRowThreads)
    GatherRows(const __grid_constant__ GatherRowsParams params) {
  WaitForInputs();
  const float* from =
      params.x + static_cast<int64_t>(params.indices[Row()]) * params.cols;
  float* to = params.out + Row() * params.cols;
#pragma unroll 4
  for (int i = Thread(); i < params.cols; i += kRowThreads) to[i] = from[i];
}

__global__ void __launch_bounds__(kRowThreads)
    GateHeads(const __grid_constant__ GateHeadsParams params) {
  WaitForInputs();
  const int64_t begin = params.row_gates[Row()];
  if (begin < 0) return;
  const float* gates = params.gates + begin + params.first_gate;
  const int width = params.query_heads * params.head_dim;
  float* context = params.context + Row() * width;
  for (int i = Thread(); i < width; i += kRowThreads) {
    context[i] *= gates[i / params.head_dim];
  }
}

struct CosSin {
  float cos;
  float sin;
};

// Polynomials of Cephes (Moshier 1989), sinf and cosf, for what is left of the
// angle after a multiple of pi / 2 is taken off. An angle of 2^17 in float32
// has bits down to 2^-7, but what is left must be right to 2^-24: 41 bits of
// the product with pi / 2, so that is in double. The functions of CUDA would do
// so for large angles, too, but with a table on the stack.
DEVICE CosSin CosSinOf(float angle) {
  constexpr double kHalfPi = 1.5707963267948966;
  const double turns = rint(static_cast<double>(angle) * (1 / kHalfPi));
  const auto x = static_cast<float>(fma(turns, -kHalfPi, angle));
  const float x2 = x * x;
  float sin = -1.9515295891e-4f;
  sin = sin * x2 + 8.3321608736e-3f;
  sin = sin * x2 - 1.6666654611e-1f;
  sin = sin * x2 * x + x;
  float cos = 2.443315711809948e-5f;
  cos = cos * x2 - 1.388731625493765e-3f;
  cos = cos * x2 + 4.166664568298827e-2f;
  cos = cos * x2 * x2 - 0.5f * x2 + 1.0f;
  const auto quarter = static_cast<int>(turns) & 3;
  const float c = quarter % 2 == 0 ? cos : sin;
  const float s = quarter % 2 == 0 ? sin : cos;
  return {.cos = quarter == 1 || quarter == 2 ? -c : c,
          .sin = quarter >= 2 ? -s : s};
}

__global__ void __launch_bounds__(kRowThreads)
    RopeTable(const __grid_constant__ RopeTableParams params) {
  WaitForInputs();
  const auto position = static_cast<float>(params.positions[Row()]);
  for (int i = Thread(); i < params.half; i += kRowThreads) {
    const CosSin value = CosSinOf(position * params.inverse_frequency[i]);
    const int64_t to = Row() * params.half + i;
    params.cos[to] = value.cos * params.scale;
    params.sin[to] = value.sin * params.scale;
  }
}

}  // namespace

Kernel<EmbedParams> FindEmbedKernel() {
  return {.kernel = Embed, .threads = kRowThreads};
}

Kernel<RmsNormParams> FindRmsNormKernel() {
  return {.kernel = RmsNorm,
          .threads = kRowThreads,
          .shared_bytes = kRowThreads / 32 * static_cast<int>(sizeof(float))};
}

Kernel<SwiGluParams> FindSwiGluKernel() {
  return {.kernel = SwiGlu, .threads = kRowThreads};
}

int SwiGluGrid(const SwiGluParams& params) {
  constexpr int64_t kElements = kRowThreads * kSwiGluElements;
  const int64_t count = static_cast<int64_t>(params.rows) * params.width;
  return static_cast<int>((count + kElements - 1) / kElements);
}

Kernel<GatherRowsParams> FindGatherRowsKernel() {
  return {.kernel = GatherRows, .threads = kRowThreads};
}

Kernel<GateHeadsParams> FindGateHeadsKernel() {
  return {.kernel = GateHeads, .threads = kRowThreads};
}

Kernel<RopeTableParams> FindRopeTableKernel() {
  return {.kernel = RopeTable, .threads = kRowThreads};
}

}  // namespace headcount::cuda
