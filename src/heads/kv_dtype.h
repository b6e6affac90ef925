// How one element of a cached key or value is stored.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace headcount {

enum class KvDtype : uint8_t { kF32, kF16 };

// Bytes of one stored element.
constexpr int64_t KvDtypeBytes(KvDtype dtype) {
  return dtype == KvDtype::kF32 ? 4 : 2;
}

// "f32", "f16".
std::string_view KvDtypeName(KvDtype dtype);

// The dtype of that name; an unknown one is InvalidArgument listing those
// known.
absl::StatusOr<KvDtype> ParseKvDtype(std::string_view name);

}  // namespace headcount
