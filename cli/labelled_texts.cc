#include "cli/labelled_texts.h"

#include <zlib.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "format/json.h"
#include "nlohmann/json.hpp"
#include "text/prompt_template.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

constexpr int kMaxLineBytes = 4 << 20;

struct CloseGzip {
  void operator()(gzFile_s* file) const { gzclose(file); }
};

const nlohmann::json* FindString(const nlohmann::json& object,
                                 const std::string& key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? &*it : nullptr;
}

}  // namespace

absl::StatusOr<LabelledText> ParseLabelledText(const std::string& line,
                                               const std::string& field,
                                               const std::string& where) {
  const absl::StatusOr<nlohmann::json> object = ParseJson(line, where);
  if (!object.ok()) return object.status();
  if (!object->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": must be an object such as {\"text\": \"...\"}"));
  }
  const nlohmann::json* text =
      field.empty() ? FindString(*object, "text") : FindString(*object, field);
  if (text == nullptr && field.empty()) text = FindString(*object, "body");
  if (text == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": has no string \"", field.empty() ? "text" : field,
        "\"; name the field that holds the text with --field"));
  }
  LabelledText result{.text = text->get<std::string>(), .label = ""};
  if (const nlohmann::json* label = FindString(*object, "label")) {
    result.label = label->get<std::string>();
  }
  if (const nlohmann::json* target = FindString(*object, "target")) {
    result.target = target->get<std::string>();
  }
  if (const nlohmann::json* split = FindString(*object, "split")) {
    result.split = split->get<std::string>();
  }
  return result;
}

absl::StatusOr<std::vector<LabelledText>> ReadLabelledTexts(
    const std::string& path, const std::string& field) {
  // zlib reads plain files as they are.
  const std::unique_ptr<gzFile_s, CloseGzip> file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  }
  std::vector<LabelledText> texts;
  std::string buffer(kMaxLineBytes, '\0');
  for (int number = 1; gzgets(file.get(), buffer.data(), kMaxLineBytes);
       ++number) {
    std::string line = buffer.c_str();
    const std::string where = absl::StrCat(path, ":", number);
    if (line.size() + 1 == buffer.size() && line.back() != '\n') {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": the line is longer than 4 MiB"));
    }
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) {
      line.pop_back();
    }
    if (line.empty()) continue;
    absl::StatusOr<LabelledText> text = ParseLabelledText(line, field, where);
    if (!text.ok()) return text.status();
    texts.push_back(*std::move(text));
  }
  int error = Z_OK;
  const char* reason = gzerror(file.get(), &error);
  if (error != Z_OK && error != Z_STREAM_END) {
    return absl::DataLossError(absl::StrCat(path, ": ", reason));
  }
  return texts;
}

absl::Status PutIntoFrame(const PromptFrame& frame,
                          std::vector<LabelledText>* texts) {
  if (frame.text.empty()) return absl::OkStatus();
  if (frame.weights.empty()) {
    return absl::InvalidArgumentError(
        "--template: needs --weights, the model's folder or .gguf, whose "
        "tokenizer knows the special tokens");
  }
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(frame.weights);
  if (!tokenizer.ok()) return tokenizer.status();
  const absl::StatusOr<PromptTemplate> prompt =
      PromptTemplate::Parse(frame.text, *tokenizer);
  if (!prompt.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--template: ", prompt.status().message()));
  }
  for (LabelledText& text : *texts) {
    if (text.target.empty()) {
      return absl::InvalidArgumentError(
          "--template: is for texts with a \"target\"; the others go into the "
          "classify.template of the model's headcount.yaml");
    }
    text.prompt_tokens = prompt->Render(text.text, *tokenizer);
  }
  return absl::OkStatus();
}

}  // namespace headcount
