#include "tests/gpu/activations.h"

#include <cstring>

#include "base/half.h"

namespace headcount::gpu {

double Rounded(float value, cuda::Activation activation) {
  switch (activation) {
    case cuda::Activation::kF32:
      return value;
    case cuda::Activation::kF16:
      return FloatFromHalf(HalfFromFloat(value));
    case cuda::Activation::kBf16:
      return FloatFromBfloat16(Bfloat16FromFloat(value));
  }
  return 0;
}

int ActivationBytes(cuda::Activation activation) {
  return activation == cuda::Activation::kF32 ? 4 : 2;
}

std::vector<std::byte> ToActivations(const std::vector<double>& values,
                                     cuda::Activation activation) {
  const auto size = static_cast<size_t>(ActivationBytes(activation));
  std::vector<std::byte> bytes(values.size() * size);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto value = static_cast<float>(values[i]);
    const uint16_t half = activation == cuda::Activation::kF16
                              ? HalfFromFloat(value)
                              : Bfloat16FromFloat(value);
    const void* from = size == 4 ? static_cast<const void*>(&value) : &half;
    std::memcpy(bytes.data() + i * size, from, size);
  }
  return bytes;
}

double FromActivation(const std::byte* bytes, cuda::Activation activation) {
  float value = 0;
  uint16_t half = 0;
  if (activation == cuda::Activation::kF32) {
    std::memcpy(&value, bytes, 4);
    return value;
  }
  std::memcpy(&half, bytes, 2);
  return activation == cuda::Activation::kF16 ? FloatFromHalf(half)
                                              : FloatFromBfloat16(half);
}

}  // namespace headcount::gpu
