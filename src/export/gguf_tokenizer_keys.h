// The tokenizer of a Hugging Face directory as the keys of a GGUF file
// (github.com/ggml-org/ggml, docs/gguf.md, "Tokenizer").
#pragma once

#include <string>

#include "absl/status/status.h"
#include "format/write_gguf.h"
#include "model/model_config.h"

namespace headcount {

// Adds tokens, merges, token types, the tokens that end a text, and the chat
// template. `path`: a directory with tokenizer.json; ids up to config.vocab
// without a token become unused ones, as in llama.cpp's converter.
//
// InvalidArgument, naming the field, for what GGUF or llama.cpp has no word
// for: byte fallback, other rules of cutting text than those of GPT-2, SmolLM,
// Llama 3 and Qwen2, and more than one token around a text.
absl::Status AddTokenizerKeys(const std::string& path,
                              const ModelConfig& config, GgufKeys* keys);

}  // namespace headcount
