#include "tests/unit/text/tiny_tokenizer.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "text/byte_level.h"

namespace headcount {

nlohmann::json TinyTokenizerJson() {
  nlohmann::json root = nlohmann::json::parse(R"json({
    "version": "1.0",
    "added_tokens": [
      {"id": 261, "content": "<|bos|>", "special": true, "normalized": false,
       "single_word": false, "lstrip": false, "rstrip": false},
      {"id": 262, "content": "<|eos|>", "special": true, "normalized": false,
       "single_word": false, "lstrip": false, "rstrip": false}
    ],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                      "use_regex": true},
    "post_processor": {
      "type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [261],
                                     "tokens": ["<|bos|>"]}}
    },
    "decoder": {"type": "ByteLevel"},
    "model": {
      "type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null,
      "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"th": 256, "the": 257, "\u0120t": 258, "\u0120the": 259,
                "aa": 260},
      "merges": [["t", "h"], "th e", ["\u0120", "the"], "\u0120 t", "a a"]
    }
  })json");
  for (int byte = 0; byte < 256; ++byte) {
    root["model"]["vocab"][ByteLevelSpelling(static_cast<uint8_t>(byte))] =
        byte;
  }
  return root;
}

nlohmann::json TinyFallbackTokenizerJson() {
  nlohmann::json root = nlohmann::json::parse(R"json({
    "version": "1.0",
    "added_tokens": [
      {"id": 0, "content": "<unk>", "special": true, "normalized": false},
      {"id": 1, "content": "<s>", "special": true, "normalized": false},
      {"id": 2, "content": "</s>", "special": true, "normalized": false}
    ],
    "normalizer": {
      "type": "Sequence",
      "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    },
    "pre_tokenizer": null,
    "post_processor": {
      "type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    },
    "decoder": {
      "type": "Sequence",
      "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    },
    "model": {
      "type": "BPE", "unk_token": "<unk>", "fuse_unk": true,
      "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "\u2581": 259, "t": 260,
                "h": 261, "e": 262, "a": 263, "\u2581t": 264, "he": 265,
                "\u2581the": 266},
      "merges": ["\u2581 t", "h e", "\u2581t he"]
    }
  })json");
  for (int byte = 0; byte < 256; ++byte) {
    root["model"]["vocab"][absl::StrFormat("<0x%02X>", byte)] = 3 + byte;
  }
  return root;
}

}  // namespace headcount
