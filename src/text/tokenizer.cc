#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/gguf.h"
#include "format/json.h"
#include "nlohmann/json.hpp"
#include "text/alphabet.h"
#include "text/bpe.h"
#include "text/byte_fallback.h"
#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/gguf_tokenizer.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_finder.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace headcount {
namespace {

struct Token {
  std::string bytes;
  bool special = false;
  bool byte = false;  // one byte of a character that has no token
};

Token TokenOf(const std::string& spelling, bool special, bool byte_fallback) {
  if (!byte_fallback) return {spelling, special};
  if (const std::optional<uint8_t> byte = ByteOfSpelling(spelling)) {
    return {std::string(1, static_cast<char>(*byte)), special, /*byte=*/true};
  }
  return {UnmarkSpaces(spelling), special};
}

// How an added token is spelled in a text where it is looked for.
std::string Sought(const TokenizerSpec& spec, const AddedToken& token) {
  if (!token.normalized) return token.content;
  return spec.pipeline.normalizer.Apply(token.content, TextPlace::kStart);
}

// By id; ids that name nothing have no bytes.
std::vector<Token> TokensOf(const TokenizerSpec& spec) {
  std::vector<Token> tokens;
  const auto at = [&tokens](int32_t id) -> Token& {
    const auto index = static_cast<size_t>(id);
    if (index >= tokens.size()) tokens.resize(index + 1);
    return tokens[index];
  };
  for (const auto& [spelling, id] : spec.vocabulary) {
    // A spelling outside the alphabet of bytes stands for itself.
    at(id) = TokenOf(spec.byte_fallback
                         ? spelling
                         : BytesOfSpelling(spelling).value_or(spelling),
                     /*special=*/false, spec.byte_fallback);
  }
  for (const AddedToken& added : spec.added_tokens) {
    at(added.id) = TokenOf(added.special ? added.content : Sought(spec, added),
                           added.special, spec.byte_fallback);
  }
  return tokens;
}

// The added tokens that are looked for in every text.
TokenFinder FinderOf(const TokenizerSpec& spec, bool normalized) {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (const AddedToken& added : spec.added_tokens) {
    if (added.special || added.normalized != normalized) continue;
    tokens.emplace_back(Sought(spec, added), added.id);
  }
  return TokenFinder(tokens);
}

std::vector<std::pair<std::string, int32_t>> SpecialsOf(
    const TokenizerSpec& spec) {
  std::vector<std::pair<std::string, int32_t>> specials;
  for (const AddedToken& added : spec.added_tokens) {
    if (added.special) specials.emplace_back(added.content, added.id);
  }
  std::stable_sort(specials.begin(), specials.end(),
                   [](const auto& a, const auto& b) {
                     return a.first.size() > b.first.size();
                   });
  return specials;
}

// Pieces that are tokens without any merge: none unless ignore_merges is set.
absl::flat_hash_map<std::string, int32_t> WholePiecesOf(
    const TokenizerSpec& spec, const std::vector<Token>& tokens) {
  absl::flat_hash_map<std::string, int32_t> pieces;
  if (!spec.ignore_merges) return pieces;
  for (const auto& [spelling, id] : spec.vocabulary) {
    if (tokens[static_cast<size_t>(id)].special) continue;
    if (spec.byte_fallback) {
      pieces.emplace(spelling, id);
    } else if (auto bytes = BytesOfSpelling(spelling)) {
      pieces.emplace(*std::move(bytes), id);
    }
  }
  return pieces;
}

// Memory of one call of Encode.
struct EncodeScratch {
  std::vector<int32_t> letters;
  Bpe::Scratch bpe;
};

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerSpec& spec)
      : pipeline(spec.pipeline),
        tokens(TokensOf(spec)),
        specials(SpecialsOf(spec)),
        raw_finder(FinderOf(spec, /*normalized=*/false)),
        normalized_finder(FinderOf(spec, /*normalized=*/true)),
        whole_pieces(WholePiecesOf(spec, tokens)),
        alphabet(spec.alphabet),
        bpe(spec.merges) {}

  // Appends the ids of a text that holds no added token.
  void EncodePlain(std::string_view text, TextPlace place,
                   EncodeScratch& scratch, std::vector<int32_t>& ids) const {
    const std::string prepared = pipeline.pre_tokenizer.Prepare(text, place);
    for (const std::string_view piece :
         PreTokenize(pipeline.pre_tokenizer.split_rules, prepared)) {
      const auto whole =
          whole_pieces.find(absl::string_view(piece.data(), piece.size()));
      if (whole != whole_pieces.end()) {
        ids.push_back(whole->second);
      } else {
        scratch.letters.clear();
        alphabet.Spell(piece, scratch.letters);
        bpe.Encode(scratch.letters, scratch.bpe, ids);
      }
    }
  }

  const TextPipeline pipeline;
  const std::vector<Token> tokens;
  const std::vector<std::pair<std::string, int32_t>> specials;
  const TokenFinder raw_finder;
  const TokenFinder normalized_finder;
  const absl::flat_hash_map<std::string, int32_t> whole_pieces;
  const Alphabet alphabet;
  const Bpe bpe;
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl)
    : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& path) {
  const absl::StatusOr<std::optional<std::string>> gguf_path = FindGguf(path);
  if (!gguf_path.ok()) return gguf_path.status();
  if (gguf_path->has_value()) {
    const absl::StatusOr<GgufFile> gguf = OpenGguf(**gguf_path);
    if (!gguf.ok()) return gguf.status();
    return Read(gguf->metadata, **gguf_path);
  }
  const std::string json_path = absl::StrCat(path, "/tokenizer.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(json_path);
  if (!json.ok()) return json.status();
  const absl::StatusOr<TokenizerSpec> spec = ReadTokenizerSpec(*json);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(),
                        absl::StrCat(json_path, ": ", spec.status().message()));
  }
  return Tokenizer(std::make_unique<const Impl>(*spec));
}

absl::StatusOr<Tokenizer> Tokenizer::Read(const GgufMetadata& metadata,
                                          const std::string& what) {
  const absl::StatusOr<TokenizerSpec> spec =
      ReadGgufTokenizerSpec(metadata, what);
  if (!spec.ok()) return spec.status();
  return Tokenizer(std::make_unique<const Impl>(*spec));
}

absl::StatusOr<Tokenizer> Tokenizer::Parse(std::string_view json) {
  const absl::StatusOr<nlohmann::json> root = ParseJson(json, "tokenizer.json");
  if (!root.ok()) return root.status();
  const absl::StatusOr<TokenizerSpec> spec = ReadTokenizerSpec(*root);
  if (!spec.ok()) return spec.status();
  return Tokenizer(std::make_unique<const Impl>(*spec));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text,
                                       TextPlace place) const {
  std::vector<int32_t> ids;
  EncodeScratch scratch;
  const auto on_token = [&ids](int32_t id) { ids.push_back(id); };
  const std::string valid = ToUtf8(text);
  impl_->raw_finder.Walk(
      valid,
      [&](std::string_view raw) {
        const TextPlace raw_place =
            raw.data() == valid.data() ? place : TextPlace::kAfterToken;
        const std::string normalized =
            impl_->pipeline.normalizer.Apply(raw, raw_place);
        impl_->normalized_finder.Walk(
            normalized,
            [&](std::string_view plain) {
              const bool first = plain.data() == normalized.data();
              impl_->EncodePlain(plain,
                                 first ? raw_place : TextPlace::kAfterToken,
                                 scratch, ids);
            },
            on_token);
      },
      on_token);
  return ids;
}

absl::Span<const int32_t> Tokenizer::prefix() const {
  return impl_->pipeline.prefix;
}

absl::Span<const int32_t> Tokenizer::suffix() const {
  return impl_->pipeline.suffix;
}

std::optional<int32_t> Tokenizer::SpecialId(std::string_view token) const {
  for (const auto& [spelling, id] : impl_->specials) {
    if (spelling == token) return id;
  }
  return std::nullopt;
}

const std::vector<std::pair<std::string, int32_t>>& Tokenizer::specials()
    const {
  return impl_->specials;
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() &&
         impl_->tokens[static_cast<size_t>(id)].special;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return impl_->tokens[static_cast<size_t>(id)].bytes;
}

bool Tokenizer::is_fallback_byte(int32_t id) const {
  return id >= 0 && id < vocab_size() &&
         impl_->tokens[static_cast<size_t>(id)].byte;
}

bool Tokenizer::strips_leading_space() const {
  return impl_->pipeline.strip_leading_space;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids,
                              bool keep_special) const {
  Detokenizer detokenizer(this, keep_special);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Finish();
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(impl_->tokens.size());
}

}  // namespace headcount
