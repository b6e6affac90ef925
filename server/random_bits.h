// Randomness that nothing has to repeat: seeds nobody chose, request ids,
// jitter, keys of this process.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace headcount {

uint64_t RandomBits();                  // not for secrets
std::array<std::byte, 16> SecretKey();  // from the system, each time
double RandomFraction();                // [0, 1)

}  // namespace headcount
