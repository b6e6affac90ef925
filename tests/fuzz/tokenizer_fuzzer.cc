// Any bytes as a tokenizer.json, as changes to a good one, as a GGUF file and
// as one key of a good one: read or refused. Any bytes as a text: encoded
// without special tokens, decoded to the same text, streamed to the same text.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "format/gguf.h"
#include "format/json.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/detokenizer.h"
#include "text/normalizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

// Of an input, what is also taken for a text. A text is encoded and decoded
// some dozens of times, which for a whole file would be most of the time.
constexpr size_t kMaxTextBytes = 64;

// Good files for changes.
const Json& ByteLevelJson() {
  static const auto* const json = new Json(TinyTokenizerJson());
  return *json;
}
const Json& FallbackJson() {
  static const auto* const json = new Json(TinyFallbackTokenizerJson());
  return *json;
}

Tokenizer Make(const Json& base, const char* changes) {
  Json json = base;
  json.merge_patch(Json::parse(changes));
  return Tokenizer::Parse(json.dump()).value();
}

// The definition: HF `tokenizers`, decoders/byte_fallback.rs and byte_level.rs.
std::string ReferenceDecode(const Tokenizer& tokenizer,
                            const std::vector<int32_t>& ids) {
  std::string text;
  std::string rest;  // bytes that may become a character
  bool run = false;  // of fallback bytes
  const auto end_run = [&] {
    const bool valid = ToUtf8(rest) == rest;
    if (run && !valid) {
      for (size_t i = 0; i < rest.size(); ++i) text += kReplacementCharacter;
    } else {
      text += ToUtf8(rest);
    }
    rest.clear();
  };
  for (const int32_t id : ids) {
    if (tokenizer.is_special(id)) continue;
    if (tokenizer.is_fallback_byte(id) != run) {
      end_run();
      run = !run;
    }
    rest += tokenizer.TokenBytes(id);
  }
  end_run();
  if (tokenizer.strips_leading_space() && text.starts_with(' ')) {
    text.erase(0, 1);
  }
  return text;
}

void CheckIds(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  Detokenizer detokenizer(&tokenizer);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.Push(id);
    CHECK(ToUtf8(piece) == piece);
    streamed += piece;
  }
  streamed += detokenizer.Finish();
  CHECK(streamed == ReferenceDecode(tokenizer, ids));
  CHECK(streamed == tokenizer.Decode(ids));
}

void CheckText(const Tokenizer& tokenizer, std::string_view bytes) {
  for (const TextPlace place : {TextPlace::kStart, TextPlace::kAfterText}) {
    const std::vector<int32_t> ids = tokenizer.Encode(bytes, place);
    for (const int32_t id : ids) CHECK(!tokenizer.is_special(id)) << id;
    CheckIds(tokenizer, ids);
  }
}

void CheckRoundTrip(const Tokenizer& tokenizer, std::string_view bytes,
                    const std::string& expected) {
  CheckText(tokenizer, bytes);
  CHECK(tokenizer.Decode(tokenizer.Encode(bytes)) == expected);
}

// Whatever was accepted keeps the promises.
void CheckAccepted(const absl::StatusOr<Tokenizer>& tokenizer,
                   std::string_view bytes) {
  if (!tokenizer.ok()) {
    CHECK(!tokenizer.status().message().empty());
    return;
  }
  CheckText(*tokenizer, "the <|bos|><s> text");
  const std::string_view text = bytes.substr(0, kMaxTextBytes);
  CheckText(*tokenizer, text);
  std::vector<int32_t> ids;
  for (const char byte : text) ids.push_back(static_cast<int32_t>(byte) + 3);
  CheckIds(*tokenizer, ids);
}

absl::StatusOr<Tokenizer> ReadGguf(std::string_view bytes) {
  const absl::StatusOr<GgufFile> file = ParseGguf(
      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
      "input");
  if (!file.ok()) return file.status();
  return Tokenizer::Read(file->metadata, "input");
}

void CheckChanges(std::string_view bytes) {
  const absl::StatusOr<Json> changes = ParseJson(bytes, "input");
  if (!changes.ok() || !changes->is_object()) return;
  for (const Json* base : {&ByteLevelJson(), &FallbackJson()}) {
    Json json = *base;
    json.merge_patch(*changes);
    CheckAccepted(Tokenizer::Parse(json.dump(-1, ' ', false,
                                             Json::error_handler_t::replace)),
                  bytes);
  }
}

// The keys of a SentencePiece vocabulary, one of them replaced by `bytes`.
void CheckKey(std::string_view bytes) {
  if (bytes.empty()) return;
  GgufWriter parts;
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    tokens.push_back(std::string("<0x") + kDigits[byte / 16] +
                     kDigits[byte % 16] + ">");
    types.push_back(6);
  }
  for (const char* token : {"\u2581", "a", "b", "ab", "<tool>"}) {
    tokens.emplace_back(token);
    types.push_back(1);
  }
  types.back() = 4;
  std::string strings;
  std::string numbers;
  std::string scores;
  for (size_t i = 0; i < tokens.size(); ++i) {
    strings += GgufText(tokens[i]);
    numbers += Bytes(types[i]);
    scores += Bytes(-static_cast<float>(i));
  }
  const std::array<std::string, 5> keys = {
      GgufKey("tokenizer.ggml.model", kGgufString, GgufText("llama")),
      GgufArrayKey("tokenizer.ggml.tokens", kGgufString, tokens.size(),
                   strings),
      GgufArrayKey("tokenizer.ggml.token_type", kGgufInt32, types.size(),
                   numbers),
      GgufArrayKey("tokenizer.ggml.scores", kGgufFloat32, tokens.size(),
                   scores),
      GgufKey("tokenizer.ggml.bos_token_id", kGgufUint32, Bytes(uint32_t{1}))};
  const size_t replaced = static_cast<unsigned char>(bytes[0]) % keys.size();
  std::string file = GgufHeader(3, 0, keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    file += i == replaced ? std::string(bytes.substr(1)) : keys[i];
  }
  CheckAccepted(ReadGguf(file), bytes);
}

}  // namespace
}  // namespace headcount

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headcount;  // NOLINT: the entry point is outside
  static const Tokenizer plain = Make(ByteLevelJson(), "{}");
  static const Tokenizer nfc =
      Make(ByteLevelJson(), R"({"normalizer": {"type": "NFC"}})");
  static const Tokenizer prefix =
      Make(ByteLevelJson(), R"({"pre_tokenizer": {"add_prefix_space": true}})");
  static const Tokenizer fallback = Make(FallbackJson(), "{}");
  static const Tokenizer metaspace = Make(FallbackJson(), R"({
    "normalizer": null,
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                      "prepend_scheme": "first", "split": true}})");

  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CheckAccepted(Tokenizer::Parse(bytes), bytes);
  CheckAccepted(ReadGguf(bytes), bytes);
  CheckChanges(bytes);
  CheckKey(bytes);

  const std::string_view raw = bytes.substr(0, kMaxTextBytes);
  const std::string text = ToUtf8(raw);
  CheckRoundTrip(plain, raw, text);
  CheckRoundTrip(nfc, raw, NormalizeNfc(text));
  const bool spaced = text.empty() || text.starts_with(' ');
  CheckRoundTrip(prefix, raw, spaced ? text : " " + text);
  CheckRoundTrip(fallback, raw, UnmarkSpaces(text));
  // A text's own space is taken for the one that Metaspace did not add.
  const std::string unmarked = UnmarkSpaces(text);
  CheckRoundTrip(metaspace, raw,
                 unmarked.starts_with(' ') ? unmarked.substr(1) : unmarked);
  std::vector<int32_t> ids;
  for (const char byte : raw) ids.push_back(3 + static_cast<uint8_t>(byte));
  CheckIds(fallback, ids);
  CheckIds(plain, ids);
  return 0;
}
