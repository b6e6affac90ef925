// Where models keep the template of their conversations.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "text/tokenizer.h"

namespace headcount {

// What a model says about its conversations.
struct ChatSource {
  std::string sha256;  // of the text of its template, in hex
  std::string bos;     // spellings of its tokens; empty: none
  std::string eos;
  std::string text = {};  // of its template
};

// From a GGUF file, or from chat_template.jinja or tokenizer_config.json of a
// directory; `path` as in Tokenizer::Load. NotFound where there is no template;
// InvalidArgument, naming the field, for what is malformed. Messages name no
// directory.
absl::StatusOr<ChatSource> ReadChatSource(const std::string& path,
                                          const Tokenizer& tokenizer);

}  // namespace headcount
