#include "text/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "format/quoted.h"
#include "text/byte_fallback.h"
#include "text/json_fields.h"
#include "text/spec_builder.h"
#include "text/unicode.h"

namespace headcount {
namespace {

// Longest token that SentencePiece's merges may make.
constexpr size_t kMaxTokenBytes = 256;

// llama.cpp's enum llama_token_type.
enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// Reads one file.
class GgufSpecReader {
 public:
  GgufSpecReader(const GgufMetadata& metadata, const std::string& what)
      : metadata_(metadata), what_(what) {}

  absl::StatusOr<TokenizerSpec> Read();

 private:
  absl::StatusOr<TokenizerSpec> ReadByteLevel();
  absl::StatusOr<TokenizerSpec> ReadSentencePiece();
  absl::Status ReadTokens();
  absl::Status ReadMerges();
  absl::Status ReadScores();
  absl::Status AddScoredMerges(size_t id, uint32_t rank);
  absl::Status ReadPreTokenizer();
  absl::StatusOr<bool> Flag(const std::string& name, bool if_absent) const;
  // Sets the ids that go around a text.
  absl::Status ReadEnds(bool add_bos_if_absent);
  absl::Status ReadEnd(const std::string& name, bool if_absent,
                       std::vector<int32_t>& ids) const;

  std::string Field(const std::string& name) const {
    return absl::StrCat(what_, ": ", Key(name));
  }
  static std::string Key(const std::string& name) {
    return absl::StrCat("tokenizer.ggml.", name);
  }

  const GgufMetadata& metadata_;
  const std::string& what_;
  SpecBuilder builder_;
  TextPipeline pipeline_;
  bool ignore_merges_ = false;
  std::vector<std::string_view> tokens_;  // by id
  std::vector<int64_t> types_;
};

absl::StatusOr<bool> GgufSpecReader::Flag(const std::string& name,
                                          bool if_absent) const {
  return metadata_.Has(Key(name)) ? metadata_.Bool(Key(name)) : if_absent;
}

absl::Status GgufSpecReader::ReadTokens() {
  auto tokens = metadata_.Strings(Key("tokens"));
  if (!tokens.ok()) return tokens.status();
  tokens_ = *std::move(tokens);
  if (tokens_.size() > static_cast<size_t>(kMaxVocabulary)) {
    return InvalidField(Field("tokens"), tokens_.size(), " entries; at most ",
                        kMaxVocabulary, " are supported");
  }
  auto types = metadata_.Ints(Key("token_type"));
  if (!types.ok()) return types.status();
  types_ = *std::move(types);
  if (types_.size() != tokens_.size()) {
    return InvalidField(Field("token_type"), types_.size(), " entries for ",
                        tokens_.size(), " tokens");
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string field = absl::StrCat(Field("tokens"), "[", i, "]");
    if (types_[i] < kNormal || types_[i] > kByte) {
      return InvalidField(absl::StrCat(Field("token_type"), "[", i, "]"),
                          types_[i], " is no type of token");
    }
    if (tokens_[i].empty() || types_[i] == kUnused) continue;
    const std::string spelling(tokens_[i]);
    if (ToUtf8(spelling) != spelling) {
      return InvalidField(field, Quoted(spelling), " is not UTF-8");
    }
    const auto id = static_cast<int32_t>(i);
    absl::Status status = builder_.AddToken(spelling, id, field);
    const bool special = types_[i] == kControl || types_[i] == kUnknown;
    if (status.ok() && (special || types_[i] == kUserDefined)) {
      status = builder_.AddAddedToken(
          {.content = spelling, .id = id, .special = special}, field);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status GgufSpecReader::ReadMerges() {
  const auto merges = metadata_.Strings(Key("merges"));
  if (!merges.ok()) return merges.status();
  if (merges->size() > static_cast<size_t>(kMaxMerges)) {
    return InvalidField(Field("merges"), merges->size(), " entries; at most ",
                        kMaxMerges, " are supported");
  }
  uint32_t rank = 0;
  for (const std::string_view merge : *merges) {
    absl::Status status = builder_.AddMerge(
        merge, rank, absl::StrCat(Field("merges"), "[", rank, "]"));
    if (!status.ok()) return status;
    ++rank;
  }
  return absl::OkStatus();
}

// The rules that llama.cpp (src/llama-vocab.cpp) has by these names, and what
// the reference tokenizers of these models do besides.
absl::Status GgufSpecReader::ReadPreTokenizer() {
  const absl::StatusOr<std::string> pre = metadata_.String(Key("pre"));
  if (!pre.ok()) return pre.status();
  std::vector<SplitRule>& rules = pipeline_.pre_tokenizer.split_rules;
  if (*pre == "gpt-2" || *pre == "default") {
    rules = {SplitRule::kGpt2};
  } else if (*pre == "smollm") {
    rules = {SplitRule::kIndividualDigits, SplitRule::kGpt2};
  } else if (*pre == "llama-bpe") {
    rules = {SplitRule::kLlama3};
    ignore_merges_ = true;
  } else if (*pre == "qwen2") {
    rules = {SplitRule::kQwen2};
    pipeline_.normalizer.nfc = true;
  } else {
    return InvalidField(Field("pre"), Quoted(*pre),
                        " is not supported; default, gpt-2, llama-bpe, qwen2 "
                        "and smollm are");
  }
  return absl::OkStatus();
}

absl::Status GgufSpecReader::ReadEnd(const std::string& name, bool if_absent,
                                     std::vector<int32_t>& ids) const {
  const absl::StatusOr<bool> add =
      Flag(absl::StrCat("add_", name, "_token"), if_absent);
  if (!add.ok()) return add.status();
  if (!*add) return absl::OkStatus();
  const std::string id_name = absl::StrCat(name, "_token_id");
  const absl::StatusOr<int64_t> id = metadata_.Int(Key(id_name));
  if (!id.ok()) return id.status();
  const std::optional<int32_t> index = CheckedCast<int32_t>(*id);
  if (!index.has_value() || *index < 0 ||
      static_cast<size_t>(*index) >= tokens_.size()) {
    return InvalidField(Field(id_name), *id, " is not that of a token");
  }
  ids.push_back(*index);
  return absl::OkStatus();
}

absl::Status GgufSpecReader::ReadEnds(bool add_bos_if_absent) {
  absl::Status status = ReadEnd("bos", add_bos_if_absent, pipeline_.prefix);
  if (!status.ok()) return status;
  return ReadEnd("eos", /*if_absent=*/false, pipeline_.suffix);
}

absl::StatusOr<TokenizerSpec> GgufSpecReader::ReadByteLevel() {
  const absl::StatusOr<bool> prefix_space =
      Flag("add_space_prefix", /*if_absent=*/false);
  if (!prefix_space.ok()) return prefix_space.status();
  if (*prefix_space) {
    return InvalidField(Field("add_space_prefix"),
                        "true is not supported for the kind gpt2");
  }
  absl::Status status = ReadPreTokenizer();
  if (status.ok()) status = ReadTokens();
  if (status.ok()) {
    status = builder_.SetAlphabet(/*byte_fallback=*/false, Field("token_type"));
  }
  if (status.ok()) status = ReadMerges();
  // Llama 3 begins every text with its BOS; its files may leave that out.
  if (status.ok()) status = ReadEnds(/*add_bos_if_absent=*/ignore_merges_);
  if (status.ok()) status = builder_.SetPipeline(pipeline_, what_);
  if (!status.ok()) return status;
  return std::move(builder_).Build(ignore_merges_);
}

// SentencePiece (src/bpe_model.cc) merges the neighbours that make the token
// with the highest score: every way to cut a token in two is a merge.
absl::Status GgufSpecReader::AddScoredMerges(size_t id, uint32_t rank) {
  const std::string_view token = tokens_[id];
  const std::string field = absl::StrCat(Field("tokens"), "[", id, "]");
  if (token.size() > kMaxTokenBytes) {
    return InvalidField(field, "has ", token.size(), " bytes; at most ",
                        kMaxTokenBytes, " are supported");
  }
  const auto is_normal = [this](std::string_view part) {
    const std::optional<int32_t> part_id = builder_.IdOf(part);
    return part_id.has_value() &&
           types_[static_cast<size_t>(*part_id)] == kNormal;
  };
  for (size_t cut = ReadUtf8(token).size; cut < token.size();
       cut += ReadUtf8(token.substr(cut)).size) {
    const std::string_view left = token.substr(0, cut);
    const std::string_view right = token.substr(cut);
    if (!is_normal(left) || !is_normal(right)) continue;
    absl::Status status = builder_.AddMerge(left, right, rank, field);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status GgufSpecReader::ReadScores() {
  const auto scores = metadata_.Numbers(Key("scores"));
  if (!scores.ok()) return scores.status();
  if (scores->size() != tokens_.size()) {
    return InvalidField(Field("scores"), scores->size(), " entries for ",
                        tokens_.size(), " tokens");
  }
  std::vector<std::pair<double, size_t>> best_first;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (std::isnan((*scores)[i])) {
      return InvalidField(absl::StrCat(Field("scores"), "[", i, "]"),
                          "is not a number");
    }
    if (types_[i] == kNormal && !tokens_[i].empty()) {
      best_first.emplace_back((*scores)[i], i);
    }
  }
  std::sort(best_first.begin(), best_first.end(), std::greater<>());
  uint32_t rank = 0;
  for (size_t i = 0; i < best_first.size(); ++i) {
    // Tokens of one score are merged from left to right.
    if (i > 0 && best_first[i].first != best_first[i - 1].first) ++rank;
    absl::Status status = AddScoredMerges(best_first[i].second, rank);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerSpec> GgufSpecReader::ReadSentencePiece() {
  const absl::StatusOr<bool> prefix_space =
      Flag("add_space_prefix", /*if_absent=*/true);
  if (!prefix_space.ok()) return prefix_space.status();
  pipeline_.normalizer.mark_spaces = true;
  pipeline_.normalizer.prepend_mark = *prefix_space;
  pipeline_.strip_leading_space = *prefix_space;

  absl::Status status = ReadTokens();
  if (status.ok()) {
    status = builder_.SetAlphabet(/*byte_fallback=*/true, Field("token_type"));
  }
  if (status.ok() && builder_.missing_byte().has_value()) {
    status = InvalidField(Field("tokens"), "has no ",
                          ByteFallbackSpelling(*builder_.missing_byte()),
                          ", the token of a byte");
  }
  if (status.ok()) status = ReadScores();
  if (status.ok()) status = ReadEnds(/*add_bos_if_absent=*/true);
  if (status.ok()) status = builder_.SetPipeline(pipeline_, what_);
  if (!status.ok()) return status;
  return std::move(builder_).Build(/*ignore_merges=*/false);
}

absl::StatusOr<TokenizerSpec> GgufSpecReader::Read() {
  const absl::StatusOr<std::string> model = metadata_.String(Key("model"));
  if (!model.ok()) return model.status();
  if (*model == "gpt2") return ReadByteLevel();
  if (*model == "llama") return ReadSentencePiece();
  return InvalidField(Field("model"), Quoted(*model),
                      " is not supported; gpt2 and llama are");
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadGgufTokenizerSpec(
    const GgufMetadata& metadata, const std::string& what) {
  return GgufSpecReader(metadata, what).Read();
}

}  // namespace headcount
