// From the bytes of a page to operands of the tensor cores.
//
// ldmatrix hands out 16-bit units, whatever they hold: one element of a bf16
// row, two of an int8 row, four of an int4 row. Instead of moving elements
// between lanes afterwards, the products are computed in the order in which
// elements come: the index that is summed over, and the rows of the result, may
// be in any order that both operands agree on. QueryElement and ValueElement
// say which.
//
// Codes become exact 16-bit numbers; scales are multiplied in later, onto
// scores and weights.
#pragma once

#include "backend/cuda/kv_page.h"
#include "backend/cuda/ptx.h"

namespace headcount::cuda {

// Element of a head at place `k` of step `step` of the score product (16 places
// a step).
template <KvDtype kDtype>
DEVICE int QueryElement(int step, int k) {
  const int pair = k % 8 / 2;
  const int half = k / 8;
  const int odd = k % 2;
  if constexpr (KvDtypeBits(kDtype) == 16) {
    return step * 16 + k;
  } else if constexpr (KvDtypeBits(kDtype) == 8) {
    return step * 16 + pair * 4 + half * 2 + odd;
  } else {
    return step / 2 * 32 + pair * 8 + step % 2 * 2 + half + odd * 4;
  }
}

// The inverse, for eight neighbouring elements that begin at 8 * `eight`: they
// make four pairs, of which `i` is elements FirstOfPair(i) and that plus
// PairDistance, and stands at this place among the pairs of the row.
template <KvDtype kDtype>
DEVICE int QueryPairPlace(int eight, int i) {
  if constexpr (KvDtypeBits(kDtype) == 16) {
    return eight * 4 + i;
  } else if constexpr (KvDtypeBits(kDtype) == 8) {
    const int pair = eight % 2 * 4 + i;  // of the step's eight
    return eight / 2 * 8 + pair % 2 * 4 + pair / 2;
  } else {
    return (eight / 4 * 2 + i / 2) * 8 + i % 2 * 4 + eight % 4;
  }
}
template <KvDtype kDtype>
DEVICE int FirstOfPair(int i) {
  return KvDtypeBits(kDtype) == 4 ? i : 2 * i;
}
template <KvDtype kDtype>
constexpr int PairDistance() {
  return KvDtypeBits(kDtype) == 4 ? 4 : 1;
}

// Element of a head at place `i` of the eight that tile `tile` of the value
// product holds.
template <KvDtype kDtype>
DEVICE int ValueElement(int tile, int i) {
  if constexpr (KvDtypeBits(kDtype) == 16) {
    return tile * 8 + i;
  } else if constexpr (KvDtypeBits(kDtype) == 8) {
    return tile / 2 * 16 + i * 2 + tile % 2;
  } else {
    return tile / 4 * 32 + i * 4 + tile % 4;
  }
}

// Two bytes of `word` that `selector` names (see ptx::Prmt) as two halves. The
// exponent of 1024 in front of a byte makes 1024 + byte.
DEVICE uint32_t Int8Pair(uint32_t word, uint32_t selector) {
  return ptx::HalfSub2(ptx::Prmt(word, 0x64646464u, selector), 0x64806480u);
}

// The low nibbles of the two 16-bit units of `word`.
DEVICE uint32_t Int4Pair(uint32_t word) {
  return ptx::HalfSub2((word & 0x000F000Fu) | 0x64006400u, 0x64086408u);
}

// Operands of the score product: a unit of 16 bytes of a row is kSteps steps of
// it. `word` is what ldmatrix gave a lane of the unit; fills the lane's low and
// high halves of k.
template <KvDtype kDtype>
struct KeyCodes {
  static constexpr int kSteps = 16 / KvDtypeBits(kDtype);  // per 16 bits

  DEVICE static void Decode(uint32_t word, uint32_t (&low)[2],
                            uint32_t (&high)[2]) {
    if constexpr (kDtype == KvDtype::kInt8) {
      low[0] = Int8Pair(word, 0x4140);
      high[0] = Int8Pair(word, 0x4342);
    } else if constexpr (kDtype == KvDtype::kFp8E4m3) {
      low[0] = ptx::E4m3PairToHalf2(static_cast<uint16_t>(word));
      high[0] = ptx::E4m3PairToHalf2(static_cast<uint16_t>(word >> 16));
    } else {
      low[0] = Int4Pair(word);
      high[0] = Int4Pair(word >> 4);
      low[1] = Int4Pair(word >> 8);
      high[1] = Int4Pair(word >> 12);
    }
  }
};

// Operands of the value product: `word` holds a 16-bit unit of two neighbouring
// tokens; fills one register for each element of the unit.
template <KvDtype kDtype>
struct ValueCodes {
  static constexpr int kElements = 16 / KvDtypeBits(kDtype);

  DEVICE static void Decode(uint32_t word, uint32_t (&pairs)[kElements]) {
    if constexpr (kDtype == KvDtype::kInt8) {
      pairs[0] = Int8Pair(word, 0x4240);
      pairs[1] = Int8Pair(word, 0x4341);
    } else if constexpr (kDtype == KvDtype::kFp8E4m3) {
      const uint32_t sorted = ptx::Prmt(word, 0, 0x3120);
      pairs[0] = ptx::E4m3PairToHalf2(static_cast<uint16_t>(sorted));
      pairs[1] = ptx::E4m3PairToHalf2(static_cast<uint16_t>(sorted >> 16));
    } else if constexpr (kDtype == KvDtype::kInt4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) pairs[i] = Int4Pair(word >> (4 * i));
    } else {
      pairs[0] = word;
    }
  }
};

// Two numbers as operands for products with codes of kDtype.
template <KvDtype kDtype>
DEVICE uint32_t PackOperand(float low, float high) {
  if constexpr (kDtype == KvDtype::kBf16) return ptx::PackBf16(low, high);
  return ptx::PackHalf(low, high);
}

template <KvDtype kDtype>
DEVICE void Multiply(float (&sums)[4], const uint32_t (&a)[4],
                     const uint32_t (&b)[2]) {
  if constexpr (kDtype == KvDtype::kBf16) {
    ptx::MmaBf16(sums, a, b);
  } else {
    ptx::MmaHalf(sums, a, b);
  }
}

}  // namespace headcount::cuda
