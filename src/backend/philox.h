// Philox4x32-10, the counter-based generator of Salmon et al. 2011 ("Parallel
// random numbers: as easy as 1, 2, 3"): the same key and counter give the same
// numbers on every device, in any order.
#pragma once

#include <array>
#include <cstdint>

namespace headcount {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter,
                                   std::array<uint32_t, 2> key);

// Uniform in [0, 1), 24 bits, for (seed, position).
float UniformFloat(uint64_t seed, uint64_t position);

}  // namespace headcount
