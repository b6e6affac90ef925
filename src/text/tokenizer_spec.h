// What a tokenizer.json says, checked: the format of Hugging Face `tokenizers`
// (tokenizers/src/tokenizer/serialization.rs), as far as byte-level BPE uses
// it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "text/bpe.h"
#include "text/text_pipeline.h"

namespace headcount {

inline constexpr int32_t kMaxVocabulary = 1'000'000;  // entries; bounds all ids
inline constexpr int32_t kMaxMerges = 2'000'000;

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;     // never found in a user's text
  bool normalized = false;  // else looked for after the normalizer has run
};

// Plain data. Every id is below kMaxVocabulary and names a token; no merge and
// no byte gives a special token.
struct TokenizerSpec {
  std::vector<std::pair<std::string, int32_t>> vocabulary;  // spelling, id
  std::array<int32_t, 256> byte_ids;  // Bpe::kNoToken where there is none
  std::vector<BpeMerge> merges;       // by rank
  bool ignore_merges = false;         // a whole piece that is a token is it
  std::vector<AddedToken> added_tokens;
  TextPipeline pipeline;
};

// InvalidArgument, naming the field, for what is malformed, and for every
// setting whose ids would differ from the reference.
absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const nlohmann::json& root);

}  // namespace headcount
