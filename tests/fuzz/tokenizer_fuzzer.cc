// Any bytes as a tokenizer.json: read or refused. Any bytes as a text: encoded
// without special tokens, decoded to the same text, streamed to the same text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

Tokenizer Make(const char* normalizer) {
  nlohmann::json json = TinyTokenizerJson();
  if (normalizer != nullptr) json["normalizer"] = {{"type", normalizer}};
  return Tokenizer::Parse(json.dump()).value();
}

void CheckText(const Tokenizer& tokenizer, std::string_view bytes,
               const std::string& expected) {
  const std::vector<int32_t> ids = tokenizer.Encode(bytes);
  Detokenizer detokenizer(&tokenizer);
  std::string streamed;
  for (const int32_t id : ids) {
    CHECK(!tokenizer.is_special(id)) << id;
    const std::string piece = detokenizer.Push(id);
    CHECK(ToUtf8(piece) == piece);
    streamed += piece;
  }
  CHECK(streamed + detokenizer.Finish() == expected);
  CHECK(tokenizer.Decode(ids) == expected);
}

// Any byte sequence can be a sequence of ids.
void CheckStream(const Tokenizer& tokenizer, std::string_view bytes) {
  std::vector<int32_t> ids;
  Detokenizer detokenizer(&tokenizer);
  std::string streamed;
  for (const char byte : bytes) {
    ids.push_back(static_cast<unsigned char>(byte));
    streamed += detokenizer.Push(ids.back());
  }
  CHECK(streamed + detokenizer.Finish() == tokenizer.Decode(ids));
}

}  // namespace
}  // namespace headcount

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headcount;  // NOLINT: the entry point is outside
  static const Tokenizer plain = Make(nullptr);
  static const Tokenizer nfc = Make("NFC");
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto tokenizer = Tokenizer::Parse(bytes); tokenizer.ok()) {
    for (const int32_t id : tokenizer->Encode("the <|bos|> text")) {
      CHECK(!tokenizer->is_special(id)) << id;
    }
  }
  CheckText(plain, bytes, ToUtf8(bytes));
  CheckText(nfc, bytes, NormalizeNfc(ToUtf8(bytes)));
  CheckStream(plain, bytes);
  return 0;
}
