// A GGUF file from keys and tensors (the format: format/gguf.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "format/tensor_to_write.h"

namespace headcount {

// Keys of a file to be, in the order in which they were first set. Setting one
// again replaces it.
//
//   GgufKeys keys;
//   keys.SetString("general.architecture", "llama");
//   keys.SetInts("llama.attention.head_count", {9, 6, 9});
class GgufKeys {
 public:
  void SetString(std::string_view key, std::string_view text);
  void SetInt(std::string_view key, uint32_t value);
  void SetFloat(std::string_view key, float value);
  void SetBool(std::string_view key, bool value);
  void SetInts(std::string_view key, const std::vector<int32_t>& values);
  void SetStrings(std::string_view key, const std::vector<std::string>& texts);
  // Type and value as GgufMetadata::Encoded gives them.
  void SetEncoded(std::string_view key, std::string encoded);

  bool Has(std::string_view key) const;
  // Key and encoded value of each.
  const std::vector<std::pair<std::string, std::string>>& entries() const {
    return entries_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> entries_;
};

// Version 3, little-endian, aligned to 32 bytes; tensors in the order given. A
// file of that name is replaced, once all is written. InvalidArgument naming
// the tensor as BytesOf, and for a name over kMaxGgufNameBytes; errors of the
// disk name `path`.
absl::Status WriteGguf(const std::string& path, const GgufKeys& keys,
                       absl::Span<const TensorToWrite> tensors,
                       const WriteProgress& progress);

}  // namespace headcount
