#include "tests/unit/text/tiny_tokenizer.h"

#include <cstdint>
#include <string>

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

}  // namespace headcount
