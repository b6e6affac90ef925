// The tokenizer in the keys of a GGUF file (github.com/ggml-org/ggml,
// docs/gguf.md, "Tokenizer"): its kinds "gpt2", which is byte-level, and
// "llama", which is SentencePiece's.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "format/gguf_metadata.h"
#include "text/tokenizer_spec.h"

namespace headcount {

// The tokenizer of the reference that the file was made from: tokens of type
// control are special, those of type user-defined are found in every text.
// Errors start with `what` and name the key: NotFound for one that is missing,
// InvalidArgument for what is malformed or not supported.
absl::StatusOr<TokenizerSpec> ReadGgufTokenizerSpec(
    const GgufMetadata& metadata, const std::string& what);

}  // namespace headcount
