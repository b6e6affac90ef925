// Activations of any element type, from and to double.
#pragma once

#include <cstddef>
#include <vector>

#include "backend/cuda/attention_work.h"

namespace headcount::gpu {

// `value` as it is once stored.
double Rounded(float value, cuda::Activation activation);
int ActivationBytes(cuda::Activation activation);
std::vector<std::byte> ToActivations(const std::vector<double>& values,
                                     cuda::Activation activation);
double FromActivation(const std::byte* bytes, cuda::Activation activation);

}  // namespace headcount::gpu
