// Tensors on their way into a file. Their bytes are asked for some rows at a
// time, so that a model may be larger than the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/element_type.h"
#include "format/output_file.h"

namespace headcount {

struct TensorToWrite {
  std::string name = {};
  ElementType dtype = ElementType::kF32;
  std::vector<int64_t> shape = {};  // row-major; [rows, columns], or [rows]
  // Puts the bytes of rows [first, first + count) to `out`; a vector has rows
  // of one element.
  std::function<void(int64_t first, int64_t count, std::byte* out)> read =
      nullptr;
};

// Bytes that were written, of all. Null: nobody asks.
using WriteProgress = std::function<void(int64_t done, int64_t total)>;

// InvalidArgument naming the tensor when its rows are no whole blocks, or its
// size is more than a file can have.
absl::StatusOr<int64_t> BytesOf(const TensorToWrite& tensor);
// Of all; small enough that offsets and padding between them cannot overflow.
absl::StatusOr<int64_t> BytesOf(absl::Span<const TensorToWrite> tensors);

// The bytes of all, each followed by zeros up to a multiple of `alignment`.
absl::Status AppendTensors(absl::Span<const TensorToWrite> tensors,
                           int64_t alignment, const WriteProgress& progress,
                           OutputFile* file);

}  // namespace headcount
