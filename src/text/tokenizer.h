// Text to token ids and back: byte-level BPE, and SentencePiece's with byte
// fallback, as Hugging Face `tokenizers` reads them from tokenizer.json; in
// O(n log n) time whatever the text. The keys of GGUF files give the same.
//
//   absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load("models/mailroom");
//   std::vector<int32_t> ids = tokenizer->Encode("Hello");
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "text/text_place.h"

namespace headcount {

class GgufMetadata;

// Immutable after Load; thread-safe. Movable.
class Tokenizer {
 public:
  // Reads the tokenizer of the model at `path`: a GGUF file, a directory with
  // one, or a directory with tokenizer.json. InvalidArgument, naming the field,
  // for what is malformed or not supported; NotFound for what is missing.
  static absl::StatusOr<Tokenizer> Load(const std::string& path);
  // The same from the text of a tokenizer.json.
  static absl::StatusOr<Tokenizer> Parse(std::string_view json);
  // The same from the keys of a GGUF file, which errors call `what`.
  static absl::StatusOr<Tokenizer> Read(const GgufMetadata& metadata,
                                        const std::string& what);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Ids of `text`, of less than 4 GiB. A special token spelled in the text is
  // plain text; added tokens that are not special are found in it. Invalid
  // UTF-8 is read as U+FFFD, one for each bad byte sequence. `place` matters to
  // tokenizers that put a space before a text.
  std::vector<int32_t> Encode(std::string_view text,
                              TextPlace place = TextPlace::kStart) const;

  // What the tokenizer itself puts before and after a text (for example BOS).
  absl::Span<const int32_t> prefix() const;
  absl::Span<const int32_t> suffix() const;

  // The id of a special token such as "<|eos|>", if there is one.
  std::optional<int32_t> SpecialId(std::string_view token) const;

  // All special tokens, longest first: what an operator's template may name.
  const std::vector<std::pair<std::string, int32_t>>& specials() const;

  bool is_special(int32_t id) const;

  // The bytes that `id` stands for: any bytes, not always whole characters.
  // Empty for ids outside the vocabulary. Special tokens give their spelling.
  std::string_view TokenBytes(int32_t id) const;
  // Whether `id` is one byte of a character that has no token of its own. (In
  // byte-level vocabularies no token is of this kind.)
  bool is_fallback_byte(int32_t id) const;
  // Whether decoding takes off the space that encoding puts before a text.
  bool strips_leading_space() const;

  // Text of `ids`; special tokens are left out unless asked for. Bytes that do
  // not form UTF-8 become U+FFFD, as Detokenizer says.
  std::string Decode(absl::Span<const int32_t> ids,
                     bool keep_special = false) const;

  // Highest id + 1.
  int32_t vocab_size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);

  std::unique_ptr<const Impl> impl_;
};

}  // namespace headcount
