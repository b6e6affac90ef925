// Where the elements of keys and values lie inside a page on a CUDA device.
//
// K and V are both kBlockTokens rows, one for each token. A row is cut into
// strips of 128, 64, 32 and 16 bytes, the widest first; strip after strip, the
// page holds that strip of all its rows. Inside a strip the 16-byte chunks of
// a row trade places, so that a warp that reads the same chunk of eight rows
// (ldmatrix) meets every bank of shared memory once. Pages lie in global memory
// in this order already: a copy to shared memory moves bytes as they are, in
// one piece. A strip of 128 bytes is what wgmma calls the 128-byte swizzle.
//
// Elements keep their order in a row; int4 has the even element in the low
// nibble. int8 and int4 are stored with their offset (see heads/kv_codes.h).
#pragma once

#include "heads/kv_dtype.h"
#include "heads/kv_geometry.h"

namespace headcount::cuda {

inline constexpr int kChunkBytes = 16;

// The byte, from the start of K or V, of chunk `chunk` of row `token`.
constexpr int PageChunkOffset(int row_bytes, int token, int chunk) {
  int strip_begin = 0;  // bytes of a row before the strip
  int strip_bytes = 128;
  while (chunk * kChunkBytes >= strip_begin + strip_bytes ||
         row_bytes - strip_begin < strip_bytes) {
    if (row_bytes - strip_begin >= strip_bytes) {
      strip_begin += strip_bytes;
    } else {
      strip_bytes /= 2;
    }
  }
  const int chunks = strip_bytes / kChunkBytes;
  const int place = chunk - strip_begin / kChunkBytes;
  // Rows that share a line of all banks hold different chunks of it anyway.
  const int rows_per_line = 8 / chunks;
  const int swizzled = place ^ (token / rows_per_line % chunks);
  return kBlockTokens * strip_begin + token * strip_bytes +
         swizzled * kChunkBytes;
}

// The byte that element `element` of row `token` begins in.
constexpr int PageElementOffset(int row_bytes, KvDtype dtype, int token,
                                int element) {
  const int byte = element * KvDtypeBits(dtype) / 8;
  return PageChunkOffset(row_bytes, token, byte / kChunkBytes) +
         byte % kChunkBytes;
}

}  // namespace headcount::cuda
