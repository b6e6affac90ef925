// Keys and values in pages, as the naive backend has them: rows of KvRowBytes
// in the order of tokens, elements in their own order. Written without a look
// at base/half.h and heads/kv_codes.h, which it is there to check.
#pragma once

#include <cstddef>
#include <cstdint>

#include "heads/kv_dtype.h"

namespace headcount::reference {

float FloatFromHalf(uint16_t half);

// Stores `count` elements as one row of `dtype`; `scale` gets the float16 scale
// of quantised ones.
void StoreRow(const float* elements, int64_t count, KvDtype dtype,
              std::byte* row, std::byte* scale);

// Element `index` of a row that StoreRow has made.
double ReadElement(const std::byte* row, const std::byte* scale, KvDtype dtype,
                   int64_t index);

}  // namespace headcount::reference
