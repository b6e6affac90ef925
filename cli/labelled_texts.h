// Texts from a file, and what is expected of them: JSON lines, plain or
// compressed by gzip.
//
//   {"label": "spam", "body": "You have won"}
//   {"text": "Dear all, the ...", "target": "Meeting moved", "split": "test"}
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace headcount {

struct LabelledText {
  std::string text;
  std::string label;        // the truth; empty: not known
  std::string target = {};  // the text that should follow; empty: not known
  std::string split = {};   // as the line names it; empty: it does not
  // The prompt as tokens; empty: the text is the prompt.
  std::vector<int32_t> prompt_tokens = {};
};

// One line. InvalidArgument, naming `where`, for what is no JSON object, for a
// missing field and for one that is no string. Without `field`, the text is in
// "text" or "body".
absl::StatusOr<LabelledText> ParseLabelledText(const std::string& line,
                                               const std::string& field,
                                               const std::string& where);

// All lines that are not empty, each of at most 4 MiB.
absl::StatusOr<std::vector<LabelledText>> ReadLabelledTexts(
    const std::string& path, const std::string& field);

// A prompt template, such as "<|bos|>{input}<|subject|>", whose special tokens
// are special and those spelled in a text are not.
struct PromptFrame {
  std::string text;     // of the template; empty: there is none
  std::string weights;  // the model's folder or .gguf: has the tokenizer
};

// Puts every text that has a target into the template, as prompt_tokens.
// InvalidArgument, naming the flag, without weights, for a template that is
// none, and for texts without a target: those have the model's own template.
absl::Status PutIntoFrame(const PromptFrame& frame,
                          std::vector<LabelledText>* texts);

}  // namespace headcount
