// Checked reads of the keys of one JSON object. The first error sticks, so a
// caller reads everything and asks once:
//
//   JsonFields fields(json, "");
//   config.hidden = fields.Int("hidden_size", {1, 65536});
//   config.tied = fields.Bool("tie_word_embeddings", false);
//   if (!fields.status().ok()) return fields.status();
//
// Every error names the key and the value found.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"

namespace headcount {

// Whole numbers from `min` to `max`.
struct IntRange {
  int32_t min = 0;
  int32_t max = 0;
};

// Finite numbers greater than `above`, up to `max`.
struct NumberRange {
  double above = 0;
  double max = 0;
};

// Without a default, a key that is absent or null is an error; after an error
// the result is the least value of its type. The object outlives the reader.
class JsonFields {
 public:
  // `path` is where the object stands, such as "layers[3]"; empty: at the top.
  JsonFields(const nlohmann::json& object, std::string path);

  // There, if only as null.
  bool Contains(const std::string& key) const {
    return object_.is_object() && object_.contains(key);
  }
  // Neither absent nor null.
  bool Has(const std::string& key) const { return Find(key) != nullptr; }
  // Null when there is no such key, or it is null.
  const nlohmann::json* Find(const std::string& key) const;

  int32_t Int(const std::string& key, IntRange range,
              std::optional<int32_t> absent = std::nullopt);
  double Number(const std::string& key, NumberRange range,
                std::optional<double> absent = std::nullopt);
  bool Bool(const std::string& key, bool absent);
  std::string String(const std::string& key,
                     std::optional<std::string> absent = std::nullopt);
  // A list of whole numbers; empty when absent.
  std::vector<int32_t> Ints(const std::string& key, IntRange range);

  // An error unless every key is one of `known`.
  void AllowOnly(absl::Span<const char* const> known);
  // Records "<path>.<key>: <what>", unless there is an error already.
  void Fail(const std::string& key, const std::string& what);

  const absl::Status& status() const { return status_; }

 private:
  std::string NameOf(const std::string& key) const;
  void FailType(const std::string& key, const char* wanted,
                const nlohmann::json& found);
  std::optional<int32_t> ToInt(const std::string& key, IntRange range,
                               const nlohmann::json& value);

  const nlohmann::json& object_;
  std::string path_;
  absl::Status status_;
};

// `value` as JSON of at most 64 characters, for errors.
std::string Abridged(const nlohmann::json& value);

}  // namespace headcount
