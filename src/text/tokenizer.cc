#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/json.h"
#include "nlohmann/json.hpp"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/pre_tokenizer.h"
#include "text/token_finder.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace headcount {
namespace {

struct Token {
  std::string bytes;
  bool special = false;
};

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
    at(id).bytes = BytesOfSpelling(spelling).value_or(spelling);
  }
  for (const AddedToken& added : spec.added_tokens) {
    at(added.id) = {added.content, added.special};
  }
  return tokens;
}

// The added tokens that are looked for in every text.
TokenFinder FinderOf(const TokenizerSpec& spec, bool normalized) {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (const AddedToken& added : spec.added_tokens) {
    if (added.special || added.normalized != normalized) continue;
    tokens.emplace_back(normalized && spec.pipeline.nfc
                            ? NormalizeNfc(added.content)
                            : added.content,
                        added.id);
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
    if (auto bytes = BytesOfSpelling(spelling)) {
      pieces.emplace(*std::move(bytes), id);
    }
  }
  return pieces;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerSpec& spec)
      : pipeline(spec.pipeline),
        tokens(TokensOf(spec)),
        specials(SpecialsOf(spec)),
        raw_finder(FinderOf(spec, /*normalized=*/false)),
        normalized_finder(FinderOf(spec, /*normalized=*/true)),
        whole_pieces(WholePiecesOf(spec, tokens)),
        bpe(spec.byte_ids, spec.merges) {}

  // Appends the ids of a text that holds no added token.
  void EncodePlain(std::string_view text, Bpe::Scratch& scratch,
                   std::vector<int32_t>& ids) const {
    for (const std::string_view piece :
         PreTokenize(pipeline.split_rules, text)) {
      const auto whole =
          whole_pieces.find(absl::string_view(piece.data(), piece.size()));
      if (whole != whole_pieces.end()) {
        ids.push_back(whole->second);
      } else {
        bpe.Encode(piece, scratch, ids);
      }
    }
  }

  const TextPipeline pipeline;
  const std::vector<Token> tokens;
  const std::vector<std::pair<std::string, int32_t>> specials;
  const TokenFinder raw_finder;
  const TokenFinder normalized_finder;
  const absl::flat_hash_map<std::string, int32_t> whole_pieces;
  const Bpe bpe;
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl)
    : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/tokenizer.json");
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path);
  if (!json.ok()) return json.status();
  const absl::StatusOr<TokenizerSpec> spec = ReadTokenizerSpec(*json);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(),
                        absl::StrCat(path, ": ", spec.status().message()));
  }
  return Tokenizer(std::make_unique<const Impl>(*spec));
}

absl::StatusOr<Tokenizer> Tokenizer::Parse(std::string_view json) {
  const absl::StatusOr<nlohmann::json> root = ParseJson(json, "tokenizer.json");
  if (!root.ok()) return root.status();
  const absl::StatusOr<TokenizerSpec> spec = ReadTokenizerSpec(*root);
  if (!spec.ok()) return spec.status();
  return Tokenizer(std::make_unique<const Impl>(*spec));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  Bpe::Scratch scratch;
  const auto on_token = [&](int32_t id) { ids.push_back(id); };
  const auto on_plain = [&](std::string_view plain) {
    impl_->EncodePlain(plain, scratch, ids);
  };
  impl_->raw_finder.Walk(
      ToUtf8(text),
      [&](std::string_view raw) {
        if (impl_->pipeline.nfc) {
          impl_->normalized_finder.Walk(NormalizeNfc(raw), on_plain, on_token);
        } else {
          impl_->normalized_finder.Walk(raw, on_plain, on_token);
        }
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

std::string Tokenizer::Decode(absl::Span<const int32_t> ids,
                              bool keep_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (keep_special || !is_special(id)) bytes.append(TokenBytes(id));
  }
  return ToUtf8(bytes);
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(impl_->tokens.size());
}

}  // namespace headcount
