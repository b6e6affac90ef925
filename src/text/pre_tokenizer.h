// Cuts text into the pieces inside which BPE may merge. Each rule is what a
// regular expression of tokenizer.json does, written out as a linear scanner.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "text/text_place.h"

namespace headcount {

enum class SplitRule {
  kGpt2,              // ByteLevel with use_regex
  kLlama3,            // Split with the pattern of Llama 3: up to three digits
  kQwen2,             // Split with the pattern of Qwen2: single digits
  kDigitRuns,         // Digits
  kIndividualDigits,  // Digits with individual_digits
  kSpaceMarks,        // Metaspace with split: before each mark
};

// The rule of a Split whose pattern is `regex`, if it is one that we know.
std::optional<SplitRule> SplitRuleOf(std::string_view regex);

// The pieces of `text`, which is valid UTF-8, after all rules in order; each
// rule sees a piece of the one before as if it were the whole text. The pieces
// are views of `text`, not empty, and put together equal it.
std::vector<std::string_view> PreTokenize(absl::Span<const SplitRule> rules,
                                          std::string_view text);

// Plain data: the `pre_tokenizer` of a tokenizer.json.
struct PreTokenizer {
  // Which texts get a space of the tokenizer's own, unless they begin with one.
  enum class Prefix { kNone, kFirst, kAll };

  Prefix prefix = Prefix::kNone;  // kFirst: only what is TextPlace::kStart
  bool mark_spaces = false;
  std::vector<SplitRule> split_rules;

  // What PreTokenize is to cut. `text` is valid UTF-8.
  std::string Prepare(std::string_view text, TextPlace place) const;
};

}  // namespace headcount
