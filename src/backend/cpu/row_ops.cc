#include "backend/cpu/row_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/row_ops.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/rms_norm-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

// silu(gate) * up = up * gate / (1 + 2^(-gate log2(e)))
template <class D>
HWY_INLINE void SwiGluVector(D d, const float* gate, const float* up,
                             float* out) {
  const auto g = hn::LoadU(d, gate);
  // Beyond 127 the quotient is 0 in float32 either way.
  const auto exponent =
      hn::Min(hn::Set(d, 127.0f),
              hn::Mul(g, hn::Set(d, -std::numbers::log2e_v<float>)));
  const auto silu = hn::Div(g, hn::Add(hn::Set(d, 1.0f), Exp2(d, exponent)));
  hn::StoreU(hn::Mul(silu, hn::LoadU(d, up)), d, out);
}

void SwiGluRow(const float* HWY_RESTRICT x, int64_t width,
               float* HWY_RESTRICT out) {
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= width; i += kLanes) {
    SwiGluVector(F32(), x + i, x + width + i, out + i);
  }
  for (; i < width; ++i) {
    SwiGluVector(hn::CappedTag<float, 1>(), x + i, x + width + i, out + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(RmsNormRow);
HWY_EXPORT(SwiGluRow);

// Elements that a task takes: some microseconds, worth waking a thread for.
constexpr int64_t kTaskElements = 16384;

// Calls run(row) for every row, over the threads where that pays.
template <typename RunRow>
void ForEachRow(int64_t rows, int64_t cols, ThreadPool* pool, RunRow run) {
  const int64_t step =
      std::max<int64_t>(1, kTaskElements / std::max<int64_t>(cols, 1));
  pool->Run((rows + step - 1) / step, [&](int64_t task, int /*worker*/) {
    const int64_t end = std::min((task + 1) * step, rows);
    for (int64_t row = task * step; row < end; ++row) run(row);
  });
}

}  // namespace

void Embed(const PackedMatrix& table, absl::Span<const int32_t> tokens,
           float* out, ThreadPool* pool) {
  const int64_t cols = table.cols();
  ForEachRow(static_cast<int64_t>(tokens.size()), cols, pool, [&](int64_t row) {
    table.CopyRow(tokens[static_cast<size_t>(row)], out + row * cols);
  });
}

void RmsNorm(const RmsNormOperands& operands, ThreadPool* pool) {
  const int64_t cols = operands.cols;
  ForEachRow(operands.rows, cols, pool, [&](int64_t row) {
    HWY_DYNAMIC_DISPATCH(RmsNormRow)
    (operands.x + row * cols, operands.weight, operands.epsilon, cols,
     operands.out + row * cols);
  });
}

void GateHeads(const StepInputs& inputs, const AttentionLayer& layer,
               float* context) {
  const auto heads = static_cast<size_t>(layer.query_heads);
  for (const StepSequence& sequence : inputs.sequences) {
    if (sequence.gates_begin < 0) continue;
    const absl::Span<const float> gates = inputs.head_gates.subspan(
        static_cast<size_t>(sequence.gates_begin + layer.query_heads_below),
        heads);
    float* element = context + static_cast<int64_t>(heads) * layer.head_dim *
                                   sequence.first_row;
    for (int32_t row = 0; row < sequence.num_rows; ++row) {
      for (const float gate : gates) {
        for (int i = 0; i < layer.head_dim; ++i) *element++ *= gate;
      }
    }
  }
}

void SwiGlu(const float* x, int64_t rows, int64_t width, float* out,
            ThreadPool* pool) {
  ForEachRow(rows, width, pool, [&](int64_t row) {
    HWY_DYNAMIC_DISPATCH(SwiGluRow)
    (x + row * 2 * width, width, out + row * width);
  });
}

void GatherRows(const float* x, absl::Span<const int32_t> indices, int64_t cols,
                float* out) {
  for (const int32_t index : indices) {
    std::memcpy(out, x + index * cols,
                static_cast<size_t>(cols) * sizeof(float));
    out += cols;
  }
}

}  // namespace headcount
#endif  // HWY_ONCE
