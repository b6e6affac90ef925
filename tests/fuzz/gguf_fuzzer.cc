// Any bytes as a GGUF file, and the model that it describes. What the parsers
// accept has to keep the promises of format/gguf.h and model/gguf_config.h.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "format/gguf.h"
#include "heads/head_layout.h"
#include "model/gguf_config.h"

namespace headcount {
namespace {

void CheckTensors(const GgufFile& gguf, absl::Span<const std::byte> file) {
  std::set<std::string> names;
  const std::byte* covered_to = file.data();
  for (const TensorEntry& entry : gguf.tensors) {
    CHECK(names.insert(entry.name).second && !entry.name.empty());
    CHECK(!entry.data.empty() && entry.data.data() >= covered_to);
    covered_to = entry.data.data() + entry.data.size();
    CHECK(covered_to <= file.data() + file.size()) << entry.name;
    if (!entry.dtype) continue;
    const ElementBlock block = BlockOf(*entry.dtype);
    auto bytes = static_cast<double>(block.bytes);
    for (int64_t size : entry.shape) bytes *= static_cast<double>(size);
    CHECK(bytes == static_cast<double>(entry.data.size()) *
                       static_cast<double>(block.elements))
        << entry.name;
  }
}

// Every getter, on keys that a tokenizer reads.
void ReadKeys(const GgufMetadata& keys) {
  for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                          "llama.attention.head_count", "k"}) {
    const bool known = keys.Has(key);
    for (const absl::Status& status :
         {keys.Int(key).status(), keys.Number(key).status(),
          keys.Bool(key).status(), keys.String(key).status(),
          keys.Strings(key).status(), keys.Ints(key).status(),
          keys.Numbers(key).status()}) {
      CHECK(absl::IsNotFound(status) == !known) << status;
    }
  }
}

void CheckConfig(const GgufFile& gguf) {
  const auto config = ParseGgufConfig(gguf);
  if (!config.ok()) {
    CHECK(config.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  const auto layout = HeadLayout::Create(
      {.layers = config->heads, .head_dim = config->head_dim});
  CHECK(layout.ok()) << layout.status();
  CHECK(std::ssize(layout->layers()) == config->layers);
  CHECK(config->vocab > 0 && config->hidden > 0);
  CHECK(std::ssize(config->ffn) == config->layers);
}

void ParseAndCheck(absl::Span<const std::byte> file) {
  const auto gguf = ParseGguf(file, "input");
  if (!gguf.ok()) {
    CHECK(gguf.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  CheckTensors(*gguf, file);
  ReadKeys(gguf->metadata);
  CheckConfig(*gguf);
}

}  // namespace
}  // namespace headcount

// Twice: as a whole file, and behind a header with the numbers of tensors and
// keys that the first two bytes say, with 64 bytes of data at an aligned place
// after, which a search by chance would seldom find.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  headcount::ParseAndCheck({bytes, size});
  if (size < 2) return 0;

  std::vector<std::byte> file(24);
  std::memcpy(file.data(), "GGUF\3", 5);
  file[8] = bytes[0];
  file[16] = bytes[1];
  file.insert(file.end(), bytes + 2, bytes + size);
  file.resize((file.size() + 31) / 32 * 32 + 64);
  headcount::ParseAndCheck(file);
  return 0;
}
