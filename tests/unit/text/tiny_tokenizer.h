// A small byte-level tokenizer.json, made here so that tests can change any
// field of it.
#pragma once

#include "nlohmann/json.hpp"

namespace headcount {

// 256 byte tokens (id = byte), merges to "th", "the", " the" and "aa" (ids 256
// to 260), and the specials <|bos|> (261) and <|eos|> (262). The GPT-2 pattern;
// <|bos|> goes before every text.
nlohmann::json TinyTokenizerJson();

}  // namespace headcount
