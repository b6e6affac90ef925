// How one element of a cached key or value is stored, and how its scale is.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace headcount {

enum class KvDtype : uint8_t { kF32, kF16, kBf16, kFp8E4m3, kInt8, kInt4 };

constexpr int KvDtypeBits(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kF32:
      return 32;
    case KvDtype::kF16:
    case KvDtype::kBf16:
      return 16;
    case KvDtype::kFp8E4m3:
    case KvDtype::kInt8:
      return 8;
    case KvDtype::kInt4:
      return 4;
  }
  return 0;
}

// Stored elements are codes; the value is the code times a scale.
constexpr bool IsQuantized(KvDtype dtype) { return KvDtypeBits(dtype) <= 8; }

// Bytes of one token's key, or value, in a page: whole 16-byte pieces, so that
// the wide loads and copies of every device can fetch it.
constexpr int64_t KvRowBytes(int64_t head_dim, KvDtype dtype) {
  return (head_dim * KvDtypeBits(dtype) + 127) / 128 * 16;
}

// What shares one scale.
enum class KvScale : uint8_t {
  kNone,    // not quantised
  kStatic,  // all tokens of a KV head (or of a layer): float32, beside the
            // model
  kToken,   // one token of one KV head: float16, in the page
};

// "f32", "f16", "bf16", "fp8_e4m3", "int8", "int4".
std::string_view KvDtypeName(KvDtype dtype);

// The dtype of that name; an unknown one is InvalidArgument listing those
// known.
absl::StatusOr<KvDtype> ParseKvDtype(std::string_view name);

}  // namespace headcount
