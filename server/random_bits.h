// Randomness that nothing has to repeat: seeds nobody chose, request ids,
// jitter. Not for secrets.
#pragma once

#include <cstdint>

namespace headcount {

uint64_t RandomBits();
double RandomFraction();  // [0, 1)

}  // namespace headcount
