#include "backend/cpu/kv_store.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/kv_store.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/rms_norm-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

constexpr int kMaxHeadDim = 256;

// Elements [begin, half) in whole vectors of `d`; returns where they end. Not
// fused: the same three roundings as Hugging Face's apply_rotary_pos_emb.
template <class D>
HWY_INLINE int RotateVectors(D d, const float* HWY_RESTRICT cos,
                             const float* HWY_RESTRICT sin, int begin, int half,
                             float* HWY_RESTRICT x) {
  const int step = static_cast<int>(hn::Lanes(d));
  int i = begin;
  for (; i + step <= half; i += step) {
    const auto c = hn::LoadU(d, cos + i);
    const auto s = hn::LoadU(d, sin + i);
    const auto low = hn::LoadU(d, x + i);
    const auto high = hn::LoadU(d, x + i + half);
    hn::StoreU(hn::Sub(hn::Mul(low, c), hn::Mul(high, s)), d, x + i);
    hn::StoreU(hn::Add(hn::Mul(high, c), hn::Mul(low, s)), d, x + i + half);
  }
  return i;
}

// Rotates `heads` heads of one row in place. x: [heads, 2 * half]
void RotateHeads(const float* cos, const float* sin, int half, int64_t heads,
                 float* x) {
  for (int64_t head = 0; head < heads; ++head) {
    const int i = RotateVectors(F32(), cos, sin, 0, half, x);
    RotateVectors(hn::CappedTag<float, 4>(), cos, sin, i, half, x);
    x += 2 * half;
  }
}

// Normalises `heads` heads of one row in place. x: [heads, head_dim]
void NormHeads(const float* weight, float epsilon, int head_dim, int64_t heads,
               float* x) {
  for (int64_t head = 0; head < heads; ++head) {
    RmsNormRow(x, weight, epsilon, head_dim, x);
    x += head_dim;
  }
}

void ConvertToHalves(const float* HWY_RESTRICT from, int count,
                     uint16_t* HWY_RESTRICT to) {
  int i = 0;
  // What Highway emulates in plain C++ does not round to the nearest.
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<hwy::float16_t, hn::CappedTag<float, 8>> dh;
  const int step = static_cast<int>(hn::Lanes(d));
  for (; i + step <= count; i += step) {
    hn::StoreU(hn::DemoteTo(dh, hn::LoadU(d, from + i)), dh,
               reinterpret_cast<hwy::float16_t*>(to + i));
  }
#endif
  for (; i < count; ++i) to[i] = HalfFromFloat(from[i]);
}

// Writes the key and value of one token into slot `slot` of its pages.
template <typename T>
void StoreToken(const T* HWY_RESTRICT key, const T* HWY_RESTRICT value,
                int head_dim, int slot, void* k_page, void* v_page) {
  T* HWY_RESTRICT k = static_cast<T*>(k_page) + slot;
  for (int i = 0; i < head_dim; ++i) k[i * kBlockTokens] = key[i];
  std::copy_n(value, head_dim, static_cast<T*>(v_page) + slot * head_dim);
}

void StoreFloatToken(const float* key, const float* value, int head_dim,
                     int slot, void* k_page, void* v_page) {
  StoreToken(key, value, head_dim, slot, k_page, v_page);
}

void StoreHalfToken(const float* key, const float* value, int head_dim,
                    int slot, void* k_page, void* v_page) {
  uint16_t halves[2 * kMaxHeadDim];
  ConvertToHalves(key, head_dim, halves);
  ConvertToHalves(value, head_dim, halves + head_dim);
  StoreToken<uint16_t>(halves, halves + head_dim, head_dim, slot, k_page,
                       v_page);
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(NormHeads);
HWY_EXPORT(RotateHeads);
HWY_EXPORT(StoreFloatToken);
HWY_EXPORT(StoreHalfToken);

// Rows of a task: whole blocks, mostly, so that two threads seldom write to the
// same cache line.
constexpr int64_t kTaskRows = 16;

// keys: [kv heads, head_dim], then as many values.
void StoreRow(const StepState& step, const AttentionLayer& layer, int64_t row,
              const float* keys, std::byte* arena) {
  const StepSequence& sequence = step.inputs.sequences[static_cast<size_t>(
      step.row_sequence[static_cast<size_t>(row)])];
  const int64_t token = sequence.past + (row - sequence.first_row);
  const int slot = static_cast<int>(token % kBlockTokens);
  const std::vector<KvHead>& heads = layer.heads->kv_heads;
  const float* values =
      keys + static_cast<int64_t>(heads.size()) * layer.head_dim;
  for (size_t i = 0; i < heads.size(); ++i) {
    const int group = heads[i].group;
    const KvPage& page = layer.geometries[static_cast<size_t>(group)].page(
        layer.layer, static_cast<int>(i));
    std::byte* block = arena + step.Block(sequence, group, token);
    const auto store = page.dtype == KvDtype::kF32
                           ? HWY_DYNAMIC_DISPATCH(StoreFloatToken)
                           : HWY_DYNAMIC_DISPATCH(StoreHalfToken);
    store(keys + static_cast<int64_t>(i) * layer.head_dim,
          values + static_cast<int64_t>(i) * layer.head_dim, layer.head_dim,
          slot, block + page.k_offset, block + page.v_offset);
  }
}

}  // namespace

void RotateAndStoreKv(const StepState& step, const AttentionLayer& layer,
                      float* qkv, void* arena, ThreadPool* pool) {
  CHECK(layer.head_dim % 8 == 0 && layer.head_dim <= 256)
      << "head_dim " << layer.head_dim;
  const int64_t rows = static_cast<int64_t>(step.row_sequence.size());
  const int64_t queries = static_cast<int64_t>(layer.heads->query_heads.size());
  const int64_t kv_heads = static_cast<int64_t>(layer.heads->kv_heads.size());
  const int64_t stride = (queries + 2 * kv_heads) * layer.head_dim;
  pool->Run((rows + kTaskRows - 1) / kTaskRows, [&](int64_t task, int) {
    const int64_t end = std::min((task + 1) * kTaskRows, rows);
    for (int64_t row = task * kTaskRows; row < end; ++row) {
      float* x = qkv + row * stride;
      float* const keys = x + queries * layer.head_dim;
      if (layer.q_norm != nullptr) {
        const auto norm = HWY_DYNAMIC_DISPATCH(NormHeads);
        norm(layer.q_norm, layer.norm_epsilon, layer.head_dim, queries, x);
        norm(layer.k_norm, layer.norm_epsilon, layer.head_dim, kv_heads, keys);
      }
      HWY_DYNAMIC_DISPATCH(RotateHeads)
      (step.rope.cos(row), step.rope.sin(row), layer.head_dim / 2,
       queries + kv_heads, x);
      StoreRow(step, layer, row, keys, static_cast<std::byte*>(arena));
    }
  });
}

}  // namespace headcount
#endif  // HWY_ONCE
