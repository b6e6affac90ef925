// Reading and writing activations of any element type.
#pragma once

#include "backend/cuda/attention_work.h"
#include "backend/cuda/ptx.h"

namespace headcount::cuda {

// Elements of one type, read as float32. Groups of eight lie at multiples of 16
// bytes.
struct F32Elements {
  const float* from;
  DEVICE float operator[](int64_t index) const {
    return ptx::Load(from + index);
  }
  DEVICE void LoadEight(int64_t index, float (&to)[8]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const ptx::Float4 four = ptx::LoadGlobalFloat4(from + index + 4 * i);
      to[4 * i] = four.x;
      to[4 * i + 1] = four.y;
      to[4 * i + 2] = four.z;
      to[4 * i + 3] = four.w;
    }
  }
};
struct F16Elements {
  const uint16_t* from;
  DEVICE float operator[](int64_t index) const {
    return ptx::HalfToFloat(ptx::Load(from + index));
  }
  DEVICE void LoadEight(int64_t index, float (&to)[8]) const {
    uint32_t words[4];
    ptx::LoadGlobal16(from + index, words);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      to[i] =
          ptx::HalfToFloat(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
    }
  }
};
struct Bf16Elements {
  const uint16_t* from;
  DEVICE float operator[](int64_t index) const {
    return ptx::Bf16ToFloat(ptx::Load(from + index));
  }
  DEVICE void LoadEight(int64_t index, float (&to)[8]) const {
    uint32_t words[4];
    ptx::LoadGlobal16(from + index, words);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      to[i] =
          ptx::Bf16ToFloat(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
    }
  }
};

// Calls use(elements) with the reader for `type`: one branch, outside of the
// loops of `use`, so that their loads are in flight together.
template <class Use>
DEVICE void WithElements(const void* from, Activation type, Use&& use) {
  if (type == Activation::kF32) {
    use(F32Elements{static_cast<const float*>(from)});
  } else if (type == Activation::kF16) {
    use(F16Elements{static_cast<const uint16_t*>(from)});
  } else {
    use(Bf16Elements{static_cast<const uint16_t*>(from)});
  }
}

DEVICE void StoreActivation(float value, Activation type, int64_t index,
                            void* to) {
  if (type == Activation::kF32) {
    ptx::Store(value, static_cast<float*>(to) + index);
  } else {
    ptx::Store(type == Activation::kF16 ? ptx::FloatToHalf(value)
                                        : ptx::FloatToBf16(value),
               static_cast<uint16_t*>(to) + index);
  }
}

}  // namespace headcount::cuda
