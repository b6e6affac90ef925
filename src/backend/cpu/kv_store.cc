#include "backend/cpu/kv_store.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/half.h"
#include "heads/kv_codes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/kv_store.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/rms_norm-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

#ifndef HEADCOUNT_BACKEND_CPU_KV_STORE_TYPES
#define HEADCOUNT_BACKEND_CPU_KV_STORE_TYPES
namespace headcount {

// Where one token of one KV head goes.
struct TokenPlace {
  std::byte* block = nullptr;
  const KvPage* page = nullptr;
  int head_dim = 0;
  int slot = 0;

  template <class T>
  T* At(int64_t page_offset) const {
    return reinterpret_cast<T*>(block + page_offset);
  }
};

}  // namespace headcount
#endif

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

// Stores elements of a key and value, of which kPack make up a word.
template <int kPack, class T>
HWY_INLINE void StoreElements(const TokenPlace& place,
                              const T* HWY_RESTRICT key,
                              const T* HWY_RESTRICT value, int64_t v_stride) {
  T* HWY_RESTRICT k = place.At<T>(place.page->k_offset) + place.slot * kPack;
  for (int i = 0; i < place.head_dim; i += kPack) {
    std::copy_n(key + i, kPack, k + i * kBlockTokens);
  }
  T* HWY_RESTRICT v = place.At<T>(place.page->v_offset) +
                      place.slot / kPack * kPack * v_stride +
                      place.slot % kPack;
  for (int i = 0; i < place.head_dim; ++i) v[i * kPack] = value[i];
}

HWY_INLINE void StoreNibbles(const TokenPlace& place,
                             const uint8_t* HWY_RESTRICT key,
                             const uint8_t* HWY_RESTRICT value) {
  const auto both = [](uint8_t low, uint8_t high) {
    return static_cast<uint8_t>(low | high << 4);
  };
  uint8_t* k = place.At<uint8_t>(place.page->k_offset) + place.slot * 4;
  for (int i = 0; i < place.head_dim; i += 8) {
    for (int j = 0; j < 4; ++j) {
      k[i / 2 * kBlockTokens + j] = both(key[i + j], key[i + 4 + j]);
    }
  }
  const int chunks = (place.head_dim + 31) / 32;
  uint8_t* v = place.At<uint8_t>(place.page->v_offset) +
               place.slot / 4 * chunks * 64 + place.slot % 4;
  for (int i = 0; i < chunks * 32; i += 32) {
    for (int j = 0; j < 16; ++j) {
      v[i * 2 + j * 4] = both(value[i + j], value[i + 16 + j]);
    }
  }
}

// Makes codes of the elements of a key or value; returns their scale.
template <class Code>
HWY_INLINE uint16_t Quantize(const float* HWY_RESTRICT from, int count,
                             KvDtype dtype, Code code,
                             uint8_t* HWY_RESTRICT to) {
  // NaN and infinity have the largest bits.
  uint32_t largest = 0;
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(from[i]) & 0x7FFFFFFF);
  }
  const uint16_t scale = KvScaleFor(std::bit_cast<float>(largest), dtype);
  const float inverse = InverseKvScale(scale);
  for (int i = 0; i < count; ++i) to[i] = code(from[i] * inverse);
  return scale;
}

// Codes of a key and value; what is left of the last 32 elements is 0.
struct TokenCodes {
  template <class Code>
  HWY_INLINE void Make(const TokenPlace& place, const float* from_key,
                       const float* from_value, Code code) {
    const KvDtype dtype = place.page->dtype;
    const int count = place.head_dim;
    place.At<uint16_t>(place.page->k_scales_offset)[place.slot] =
        Quantize(from_key, count, dtype, code, key);
    place.At<uint16_t>(place.page->v_scales_offset)[place.slot] =
        Quantize(from_value, count, dtype, code, value);
  }

  uint8_t key[kMaxHeadDim];
  uint8_t value[kMaxHeadDim] = {};
};

void StoreHalves(const TokenPlace& place, const float* key,
                 const float* value) {
  uint16_t halves[2 * kMaxHeadDim];
  ConvertToHalves(key, place.head_dim, halves);
  ConvertToHalves(value, place.head_dim, halves + kMaxHeadDim);
  StoreElements<1>(place, halves, halves + kMaxHeadDim, place.head_dim);
}

void StoreBfloat16(const TokenPlace& place, const float* key,
                   const float* value) {
  uint16_t elements[2][kMaxHeadDim];
  for (int i = 0; i < place.head_dim; ++i) {
    elements[0][i] = Bfloat16FromFloat(key[i]);
    elements[1][i] = Bfloat16FromFloat(value[i]);
  }
  StoreElements<2>(place, elements[0], elements[1], place.head_dim);
}

void StoreCodes(const TokenPlace& place, const float* key, const float* value) {
  TokenCodes codes;
  switch (place.page->dtype) {
    case KvDtype::kInt8:
      codes.Make(place, key, value, [](float x) { return Int8Code(x); });
      return StoreElements<4>(place, codes.key, codes.value, place.head_dim);
    case KvDtype::kInt4:
      codes.Make(place, key, value, [](float x) { return Int4Code(x); });
      return StoreNibbles(place, codes.key, codes.value);
    default:
      codes.Make(place, key, value, [](float x) { return Fp8Code(x); });
      return StoreElements<1>(place, codes.key, codes.value,
                              KvRowBytes(place.head_dim, KvDtype::kFp8E4m3));
  }
}

// Writes the key and value of one token into its page.
void StoreToken(const TokenPlace& place, const float* key, const float* value) {
  switch (place.page->dtype) {
    case KvDtype::kF32:
      return StoreElements<1>(place, key, value, place.head_dim);
    case KvDtype::kF16:
      return StoreHalves(place, key, value);
    case KvDtype::kBf16:
      return StoreBfloat16(place, key, value);
    default:
      return StoreCodes(place, key, value);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(NormHeads);
HWY_EXPORT(RotateHeads);
HWY_EXPORT(StoreToken);

// Rows of a task: whole blocks, mostly, so that two threads seldom write to the
// same cache line.
constexpr int64_t kTaskRows = 16;

// keys: [kv heads, head_dim], then as many values.
void StoreRow(const StepState& step, const AttentionLayer& layer, int64_t row,
              const float* keys, std::byte* arena) {
  const StepSequence& sequence = step.inputs.sequences[static_cast<size_t>(
      step.row_sequence[static_cast<size_t>(row)])];
  const VariantLayer& variant =
      layer.variants[static_cast<size_t>(sequence.variant)];
  const int64_t token = sequence.past + (row - sequence.first_row);
  const std::vector<KvHead>& heads = variant.heads->kv_heads;
  const float* values = keys + int64_t{layer.kv_heads} * layer.head_dim;
  for (size_t i = 0; i < heads.size(); ++i) {
    const int group = heads[i].group;
    const KvPage& page = variant.geometries[static_cast<size_t>(group)].page(
        layer.layer, static_cast<int>(i));
    const TokenPlace place = {
        .block = arena + step.Block(sequence, group, token),
        .page = &page,
        .head_dim = layer.head_dim,
        .slot = static_cast<int>(token % kBlockTokens)};
    const int64_t first = int64_t{variant.kv_slots[i]} * layer.head_dim;
    HWY_DYNAMIC_DISPATCH(StoreToken)(place, keys + first, values + first);
  }
}

}  // namespace

void RotateAndStoreKv(const StepState& step, const AttentionLayer& layer,
                      float* qkv, void* arena, ThreadPool* pool) {
  CHECK(layer.head_dim % 8 == 0 && layer.head_dim <= 256)
      << "head_dim " << layer.head_dim;
  const int64_t rows = static_cast<int64_t>(step.row_sequence.size());
  const int64_t queries = layer.query_heads;
  const int64_t kv_heads = layer.kv_heads;
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
