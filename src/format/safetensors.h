// The safetensors format: 8 bytes of header length (little-endian), a header
// in JSON that says type, shape and place of every tensor, then their bytes
// without a gap. Source: github.com/huggingface/safetensors, "Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/checkpoint.h"

namespace headcount {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensorRank = 8;

// The tensors of a whole `file`, in the order of their bytes, which are views
// into it: each as long as its shape says, together all that follows the
// header, none shared. Names are unique. InvalidArgument, starting with `what`
// and naming the tensor, when the file says otherwise. Allocates in proportion
// to the header, whatever sizes it claims.
absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(
    absl::Span<const std::byte> file, const std::string& what);

}  // namespace headcount
