#include "format/write_safetensors.h"

#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/quoted.h"
#include "nlohmann/json.hpp"

namespace headcount {

absl::Status WriteSafetensors(const std::string& path,
                              absl::Span<const TensorToWrite> tensors,
                              const WriteProgress& progress) {
  const absl::StatusOr<int64_t> total = BytesOf(tensors);
  if (!total.ok()) return total.status();
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  int64_t end = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (IsQuantized(tensor.dtype)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name), " is ",
                       std::string(ElementTypeName(tensor.dtype)),
                       ", which safetensors does not have; GGUF does"));
    }
    const absl::StatusOr<int64_t> bytes = BytesOf(tensor);
    if (!bytes.ok()) return bytes.status();
    const int64_t start = end;
    end += *bytes;
    header[tensor.name] = {
        {"dtype", std::string(ElementTypeName(tensor.dtype))},
        {"shape", tensor.shape},
        {"data_offsets", std::vector<int64_t>{start, end}}};
  }
  std::string text =
      header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  absl::StatusOr<OutputFile> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  absl::Status status = file->Append(
      std::string_view(reinterpret_cast<const char*>(&length), sizeof(length)));
  if (status.ok()) status = file->Append(text);
  if (status.ok()) status = AppendTensors(tensors, 1, progress, &*file);
  if (status.ok()) status = file->Commit();
  return status;
}

}  // namespace headcount
