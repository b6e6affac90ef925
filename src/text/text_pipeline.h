// What a tokenizer.json does around its model: normalizer, pre_tokenizer,
// post_processor and decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "text/pre_tokenizer.h"

namespace headcount {

// Plain data.
struct TextPipeline {
  bool nfc = false;                    // normalizer
  std::vector<SplitRule> split_rules;  // pre_tokenizer
  std::vector<int32_t> prefix;         // post_processor: ids before a text
  std::vector<int32_t> suffix;         // and after it
};

// InvalidArgument, naming the field, for what is malformed and for every
// component whose ids or text would differ from the reference. Ids are below
// `max_vocabulary`; the caller checks that they name tokens.
absl::StatusOr<TextPipeline> ReadTextPipeline(const nlohmann::json& root,
                                              int32_t max_vocabulary);

}  // namespace headcount
