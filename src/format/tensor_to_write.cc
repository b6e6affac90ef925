#include "format/tensor_to_write.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked.h"
#include "format/quoted.h"

namespace headcount {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int64_t kMaxBytes = int64_t{1} << 60;

int64_t ColumnsOf(const TensorToWrite& tensor) {
  return tensor.shape.size() == 1 ? 1 : tensor.shape[1];
}

}  // namespace

absl::StatusOr<int64_t> BytesOf(const TensorToWrite& tensor) {
  const auto fail = [&](const char* why) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(tensor.name), " of shape [",
                     absl::StrJoin(tensor.shape, ", "), "] ", why));
  };
  if (tensor.shape.empty() || tensor.shape.size() > 2 ||
      *std::min_element(tensor.shape.begin(), tensor.shape.end()) < 1) {
    return fail("is neither a vector nor a matrix");
  }
  const ElementBlock block = BlockOf(tensor.dtype);
  if (ColumnsOf(tensor) % block.elements != 0) {
    return fail("has rows that are not whole blocks of its type");
  }
  const std::optional<int64_t> row =
      CheckedMul(ColumnsOf(tensor) / block.elements, block.bytes);
  const std::optional<int64_t> bytes =
      row ? CheckedMul(*row, tensor.shape[0]) : std::nullopt;
  if (!bytes) return fail("is too large for a file");
  return *bytes;
}

absl::StatusOr<int64_t> BytesOf(absl::Span<const TensorToWrite> tensors) {
  int64_t total = 0;
  for (const TensorToWrite& tensor : tensors) {
    const absl::StatusOr<int64_t> bytes = BytesOf(tensor);
    if (!bytes.ok()) return bytes.status();
    const std::optional<int64_t> sum = CheckedAdd(total, *bytes);
    if (!sum || *sum > kMaxBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name),
                       " and those before it are too large for a file"));
    }
    total = *sum;
  }
  return total;
}

absl::Status AppendTensors(absl::Span<const TensorToWrite> tensors,
                           int64_t alignment, const WriteProgress& progress,
                           OutputFile* file) {
  const absl::StatusOr<int64_t> total = BytesOf(tensors);
  if (!total.ok()) return total.status();
  int64_t done = 0;
  std::vector<std::byte> chunk;
  for (const TensorToWrite& tensor : tensors) {
    const int64_t row = ElementBytes(tensor.dtype, ColumnsOf(tensor));
    const int64_t most = std::max<int64_t>(1, kChunkBytes / row);
    const int64_t rows = tensor.shape[0];
    for (int64_t first = 0; first < rows; first += most) {
      const int64_t count = std::min(most, rows - first);
      chunk.resize(static_cast<size_t>(count * row));
      tensor.read(first, count, chunk.data());
      absl::Status status = file->Append(chunk);
      if (!status.ok()) return status;
      done += count * row;
      if (progress) progress(done, *total);
    }
    const int64_t rest = rows * row % alignment;
    if (rest == 0) continue;
    absl::Status status =
        file->Append(std::string(static_cast<size_t>(alignment - rest), '\0'));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace headcount
