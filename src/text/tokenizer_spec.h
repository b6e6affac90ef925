// What a tokenizer file says, checked. Two kinds of BPE vocabulary are known:
// byte-level ones (GPT-2, Llama 3, Qwen2, RoBERTa), and those of SentencePiece
// with byte fallback (Llama 2, Mistral, Gemma).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "text/alphabet.h"
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
// no letter of the alphabet gives a special token.
struct TokenizerSpec {
  std::vector<std::pair<std::string, int32_t>> vocabulary;  // spelling, id
  // How tokens are spelled: as text, "▁" for a space and <0x0A> for a byte; or
  // as bytes, in the characters of byte_level.h.
  bool byte_fallback = false;
  Alphabet alphabet;
  std::vector<BpeMerge> merges;
  bool ignore_merges = false;  // a whole piece that is a token is it
  std::vector<AddedToken> added_tokens;
  TextPipeline pipeline;
};

// From a tokenizer.json: the format of Hugging Face `tokenizers`
// (tokenizers/src/tokenizer/serialization.rs), as far as BPE uses it.
// InvalidArgument, naming the field, for what is malformed, and for every
// setting whose ids would differ from the reference.
absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const nlohmann::json& root);

}  // namespace headcount
