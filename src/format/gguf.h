// The GGUF format, versions 2 and 3, little-endian: a header, keys with their
// values (what the model is and its vocabulary), what type, shape and place
// every tensor has, then their bytes, each tensor on an aligned place. Source:
// github.com/ggml-org/ggml, docs/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/checkpoint.h"
#include "format/gguf_metadata.h"
#include "format/mapped_file.h"

namespace headcount {

inline constexpr size_t kMaxGgufNameBytes = 64;  // of a tensor; GGML's limit
inline constexpr uint32_t kMaxGgufRank = 4;

// The number of a type in a file (enum ggml_type).
uint32_t GgmlTypeNumber(ElementType type);

// Movable, not copyable. Thread-safe to read.
struct GgufFile {
  std::unique_ptr<MappedFile> file;  // what OpenGguf mapped, else null
  // Views into the file, also once this has moved.
  GgufMetadata metadata;
  std::vector<TensorEntry> tensors;  // in the order of their bytes
};

// The keys and tensors of a whole `file`, as views into it: every tensor as
// long as its shape says, one after the other, none shared, names unique and
// no size zero. InvalidArgument, starting with `what` and naming the key or
// tensor, when the file says otherwise. Allocates in proportion to the bytes
// before the data, whatever sizes they claim.
absl::StatusOr<GgufFile> ParseGguf(absl::Span<const std::byte> file,
                                   const std::string& what);

// The same of a file, which it keeps mapped. NotFound when it is absent.
absl::StatusOr<GgufFile> OpenGguf(const std::string& path);

// The GGUF file of the model at `path`: `path` itself when it is named *.gguf,
// else the only *.gguf of the directory `path` when that has no *.safetensors.
// Absent when the model is of another format, or is not there; InvalidArgument
// when the directory leaves a choice of files.
absl::StatusOr<std::optional<std::string>> FindGguf(const std::string& path);

}  // namespace headcount
