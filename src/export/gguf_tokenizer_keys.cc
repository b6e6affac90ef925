#include "export/gguf_tokenizer_keys.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "format/json.h"
#include "model/at_path.h"
#include "nlohmann/json.hpp"
#include "text/chat_source.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"

namespace headcount {
namespace {

// llama.cpp's enum llama_token_type.
enum TokenType : int32_t {
  kNormal = 1,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
};

absl::Status NoKey(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(
      what, "; --format safetensors keeps tokenizer.json as it is"));
}

// llama.cpp's name (src/llama-vocab.cpp) for what cuts text into pieces; empty:
// it has none.
std::string PreTokenizerName(const TokenizerSpec& spec) {
  const std::vector<SplitRule>& rules = spec.pipeline.pre_tokenizer.split_rules;
  const auto is = [&](const std::vector<SplitRule>& wanted) {
    return rules == wanted;
  };
  // Its rules for llama-bpe take whole pieces that are tokens; others do not.
  if (is({SplitRule::kLlama3}) && spec.ignore_merges) return "llama-bpe";
  if (spec.ignore_merges) return "";
  if (is({SplitRule::kQwen2})) return "qwen2";
  if (spec.pipeline.normalizer.nfc) return "";
  if (is({SplitRule::kGpt2})) return "gpt-2";
  if (is({SplitRule::kIndividualDigits, SplitRule::kGpt2})) return "smollm";
  return "";
}

absl::Status CheckKind(const TokenizerSpec& spec) {
  if (spec.byte_fallback) {
    return NoKey(
        "model.byte_fallback: true, but only byte-level tokenizers are written "
        "to GGUF");
  }
  const PreTokenizer& pre = spec.pipeline.pre_tokenizer;
  if (PreTokenizerName(spec).empty() ||
      pre.prefix != PreTokenizer::Prefix::kNone) {
    return NoKey(
        "pre_tokenizer: llama.cpp has no name for it; it knows those of GPT-2, "
        "SmolLM, Llama 3 and Qwen2");
  }
  return absl::OkStatus();
}

void AddTokens(const TokenizerSpec& spec, int32_t vocab, GgufKeys* keys) {
  std::vector<std::string> tokens(static_cast<size_t>(vocab));
  std::vector<int32_t> types(tokens.size(), kUnused);
  for (size_t id = 0; id < tokens.size(); ++id) {
    tokens[id] = absl::StrCat("[PAD", id, "]");
  }
  for (const auto& [spelling, id] : spec.vocabulary) {
    tokens[static_cast<size_t>(id)] = spelling;
    types[static_cast<size_t>(id)] = kNormal;
  }
  for (const AddedToken& token : spec.added_tokens) {
    tokens[static_cast<size_t>(token.id)] = token.content;
    types[static_cast<size_t>(token.id)] =
        token.special ? kControl : kUserDefined;
  }
  keys->SetStrings("tokenizer.ggml.tokens", tokens);
  keys->SetInts("tokenizer.ggml.token_type", types);

  std::vector<BpeMerge> merges = spec.merges;
  std::stable_sort(
      merges.begin(), merges.end(),
      [](const BpeMerge& a, const BpeMerge& b) { return a.rank < b.rank; });
  std::vector<std::string> pairs;
  pairs.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    pairs.push_back(absl::StrCat(tokens[static_cast<size_t>(merge.left)], " ",
                                 tokens[static_cast<size_t>(merge.right)]));
  }
  keys->SetStrings("tokenizer.ggml.merges", pairs);
}

// One of the ids that go around a text; name: "bos" or "eos".
absl::Status AddEnd(const std::string& name, const std::vector<int32_t>& around,
                    int32_t of_config, GgufKeys* keys) {
  const std::string prefix = "tokenizer.ggml.";
  const bool add = !around.empty();
  if (around.size() > 1 || (add && of_config >= 0 && around[0] != of_config)) {
    return NoKey(absl::StrCat("post_processor: GGUF has one ", name,
                              " token, and it is that of config.json"));
  }
  const int32_t id = add ? around[0] : of_config;
  if (id >= 0) {
    keys->SetInt(absl::StrCat(prefix, name, "_token_id"),
                 static_cast<uint32_t>(id));
  }
  keys->SetBool(absl::StrCat(prefix, "add_", name, "_token"), add);
  return absl::OkStatus();
}

absl::Status AddEnds(const TokenizerSpec& spec, const ModelConfig& config,
                     GgufKeys* keys) {
  absl::Status status =
      AddEnd("bos", spec.pipeline.prefix, config.bos_id, keys);
  const std::vector<int32_t>& eos = config.eos_ids;
  if (status.ok()) {
    status =
        AddEnd("eos", spec.pipeline.suffix, eos.empty() ? -1 : eos[0], keys);
  }
  // Others that end an answer: of a turn, of a message.
  const char* const kOthers[] = {"eot", "eom"};
  for (size_t i = 1; i < eos.size() && i <= std::size(kOthers); ++i) {
    keys->SetInt(absl::StrCat("tokenizer.ggml.", kOthers[i - 1], "_token_id"),
                 static_cast<uint32_t>(eos[i]));
  }
  return status;
}

}  // namespace

absl::Status AddTokenizerKeys(const std::string& path,
                              const ModelConfig& config, GgufKeys* keys) {
  const std::string file = absl::StrCat(path, "/tokenizer.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(file);
  if (!json.ok()) return json.status();
  const absl::StatusOr<TokenizerSpec> spec = ReadTokenizerSpec(*json);
  absl::Status status = spec.status();
  if (status.ok()) status = CheckKind(*spec);
  if (!status.ok()) return AtPath(file, status);
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(path);
  if (!tokenizer.ok()) return tokenizer.status();
  if (tokenizer->vocab_size() > config.vocab) {
    return AtPath(file,
                  absl::InvalidArgumentError(absl::StrCat(
                      "has ids up to ", tokenizer->vocab_size() - 1,
                      ", but the model has a vocabulary of ", config.vocab)));
  }
  keys->SetString("tokenizer.ggml.model", "gpt2");
  keys->SetString("tokenizer.ggml.pre", PreTokenizerName(*spec));
  AddTokens(*spec, config.vocab, keys);
  status = AddEnds(*spec, config, keys);
  if (!status.ok()) return AtPath(file, status);
  keys->SetBool("tokenizer.ggml.add_space_prefix", false);
  const absl::StatusOr<ChatSource> chat = ReadChatSource(path, *tokenizer);
  if (chat.ok()) keys->SetString("tokenizer.chat_template", chat->text);
  return absl::IsNotFound(chat.status()) ? absl::OkStatus() : chat.status();
}

}  // namespace headcount
