// Tokenizer throughput, with a hash of the ids so that no speed work changes
// them unseen.
//   tokenizer_benchmark --benchmark_filter=letter
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "tests/golden/golden.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

constexpr size_t kBytes = 1 << 20;

std::string Repeat(const std::string& unit) {
  std::string text;
  while (text.size() < kBytes) text += unit;
  return text;
}

// FNV-1a.
uint64_t Hash(const std::vector<int32_t>& ids) {
  uint64_t hash = 14695981039346656037u;
  for (const int32_t id : ids) {
    hash = (hash ^ static_cast<uint32_t>(id)) * 1099511628211u;
  }
  return hash;
}

const char* const kTokenizers[] = {"gpt2", "llama3", "qwen2", "smollm2_style"};

struct Text {
  const char* name;
  const char* unit;  // repeated; null for real mails
};
constexpr Text kTexts[] = {
    {"mails", nullptr},
    {"one letter", "a"},
    {"spaces", " "},
    {"newlines", "\n"},
    {"emoji", "\U0001F600"},
    {"marks", "\u0301\u0316"},
    {"mixed", "a \n1\U0001F600'll\u00E9  \r\n_"},
};

std::string ContentOf(const Text& text) {
  if (text.unit != nullptr) return Repeat(text.unit);
  return ReadGzipFile(HEADCOUNT_SOURCE_DIR "/tests/data/spam/test.jsonl.gz")
      .substr(0, kBytes);
}

void BM_Encode(benchmark::State& state) {
  const std::string name = kTokenizers[state.range(0)];
  const Text& text = kTexts[state.range(1)];
  const std::string content = ContentOf(text);
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(
      ReadGzipFile(HEADCOUNT_SOURCE_DIR "/tests/data/golden/tokenizers/" +
                   name + ".tokenizer.json.gz"));
  if (!tokenizer.ok()) {
    state.SkipWithError(tokenizer.status().ToString().c_str());
    return;
  }
  std::vector<int32_t> ids;
  for (auto _ : state) {
    ids = tokenizer->Encode(content);
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(content.size()));
  state.SetLabel(name + ", " + text.name + ": " + std::to_string(ids.size()) +
                 " ids, hash " + std::to_string(Hash(ids)));
}
BENCHMARK(BM_Encode)
    ->ArgsProduct({benchmark::CreateDenseRange(0, 3, 1),
                   benchmark::CreateDenseRange(0, 6, 1)})
    ->ArgNames({"tokenizer", "text"})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace headcount

BENCHMARK_MAIN();
