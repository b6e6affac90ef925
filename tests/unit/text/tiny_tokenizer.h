// Small tokenizer.json files, made here so that tests can change any field.
#pragma once

#include "nlohmann/json.hpp"

namespace headcount {

// 256 byte tokens (id = byte), merges to "th", "the", " the" and "aa" (ids 256
// to 260), and the specials <|bos|> (261) and <|eos|> (262). The GPT-2 pattern;
// <|bos|> goes before every text.
nlohmann::json TinyTokenizerJson();

// One with byte fallback, as Llama 2 has it: the specials <unk>, <s> and </s>
// (ids 0 to 2), 256 byte tokens (id = 3 + byte), "\u2581" (259), "t", "h", "e"
// and "a" (260 to 263), merges to "\u2581t", "he" and "\u2581the" (264 to 266).
// "\u2581" goes before every text, <s> before all.
nlohmann::json TinyFallbackTokenizerJson();

}  // namespace headcount
