// Makes a TokenizerSpec out of what a file says, and checks that its parts fit
// together. Errors are InvalidArgument and begin with the field that the caller
// names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "text/tokenizer_spec.h"

namespace headcount {

// Not thread-safe. The order of calls is that of the functions.
class SpecBuilder {
 public:
  // `id` is below kMaxVocabulary.
  absl::Status AddToken(const std::string& spelling, int32_t id,
                        const std::string& field);
  // A token of the vocabulary by the same content and id, or one more.
  absl::Status AddAddedToken(AddedToken token, const std::string& field);
  // Finds the alphabet among the tokens. `field` is where specials are named.
  absl::Status SetAlphabet(bool byte_fallback, const std::string& field);
  // A byte of UTF-8 text that has no token: text loses it. Null: none.
  std::optional<uint8_t> missing_byte() const { return missing_byte_; }
  absl::Status AddMerge(std::string_view left, std::string_view right,
                        uint32_t rank, const std::string& field);
  // "left right", as files write a merge.
  absl::Status AddMerge(std::string_view pair, uint32_t rank,
                        const std::string& field);
  absl::Status SetPipeline(TextPipeline pipeline, const std::string& field);

  // The id of a token of the vocabulary.
  std::optional<int32_t> IdOf(std::string_view spelling) const;

  TokenizerSpec Build(bool ignore_merges) &&;

 private:
  absl::Status SetCharacters(const std::string& field);

  TokenizerSpec spec_;
  absl::flat_hash_map<std::string, int32_t> ids_;  // of the vocabulary
  absl::flat_hash_set<int32_t> taken_;             // ids that name a token
  absl::flat_hash_set<std::string> added_;
  absl::flat_hash_set<int32_t> special_;
  std::optional<uint8_t> missing_byte_;
};

}  // namespace headcount
