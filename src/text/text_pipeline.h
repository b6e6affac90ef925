// What a tokenizer does around its model: normalizer, pre_tokenizer,
// post_processor and decoder of a tokenizer.json.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace headcount {

// Plain data.
struct TextPipeline {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::vector<int32_t> prefix;       // post_processor: ids before a text
  std::vector<int32_t> suffix;       // and after it
  bool strip_leading_space = false;  // decoder: one, at the start of a text
};

// InvalidArgument, naming the field, for what is malformed and for every
// component whose ids or text would differ from the reference: byte-level
// tokenizers have components of one kind, those with `byte_fallback` of
// another. Ids are below `max_vocabulary`; the caller checks that they name
// tokens.
absl::StatusOr<TextPipeline> ReadTextPipeline(const nlohmann::json& root,
                                              bool byte_fallback,
                                              int32_t max_vocabulary);

}  // namespace headcount
