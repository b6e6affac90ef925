// Checked reads of the keys of a GGUF model, as JsonFields reads an object:
//
//   GgufFields fields(file.metadata, "llama");
//   config.hidden = fields.Int("embedding_length", {1, 65536});
//   if (!fields.status().ok()) return fields.status();
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "format/gguf_metadata.h"
#include "model/json_fields.h"

namespace headcount {

// A key is "<architecture>.<key>", or "tokenizer..." as it stands. The first
// error sticks, and names file, key and value; after it, results are the least
// value of their type. Without a default, an absent key is an error. The
// metadata outlives the reader.
class GgufFields {
 public:
  GgufFields(const GgufMetadata& metadata, std::string_view architecture);

  bool Has(std::string_view key) const { return metadata_.Has(Name(key)); }
  // False of a scalar, and where there is no such key.
  bool IsArray(std::string_view key) const {
    return metadata_.IsArray(Name(key));
  }

  int32_t Int(std::string_view key, IntRange range,
              std::optional<int32_t> absent = std::nullopt);
  double Number(std::string_view key, NumberRange range,
                std::optional<double> absent = std::nullopt);
  bool Bool(std::string_view key, bool absent);
  std::string String(std::string_view key, const std::string& absent);
  // [layers]; the file has an array of as many, or one number for all.
  std::vector<int32_t> PerLayer(std::string_view key, int32_t layers,
                                IntRange range);

  // Records an error about `key`, unless there is one already.
  void Fail(std::string_view key, std::string_view message);

  const absl::Status& status() const { return status_; }

 private:
  std::string Name(std::string_view key) const;
  int32_t InRange(std::string_view key, int64_t value, IntRange range);
  // What was read, or nothing and the error recorded.
  template <typename T>
  std::optional<T> Take(absl::StatusOr<T> value);

  const GgufMetadata& metadata_;
  const std::string prefix_;
  absl::Status status_;
};

}  // namespace headcount
