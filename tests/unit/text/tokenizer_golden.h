// Comparison of a tokenizer with the golden ids and texts of the reference.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "text/tokenizer.h"

namespace headcount {

// A file of tests/data/golden/tokenizers, uncompressed.
std::string ReadTokenizerGolden(const std::string& file);

// The lines of NAME.jsonl.gz; those with a text are cases.
std::vector<nlohmann::json> ReadGoldenLines(const std::string& name);

// Expects of `tokenizer` what NAME.jsonl.gz says: ids, ids with the tokens
// around them, and text, whole and streamed. Says how many texts it compared.
void ExpectGolden(const Tokenizer& tokenizer, const std::string& name);

}  // namespace headcount
