// What the engine adds to a model: decoding by StepOnce beside the same steps
// of the model alone (Forward and Sample), on models/mailroom, 128 tokens after
// prompts of 128. The difference in `time/token` is what scheduling,
// detokenising and handing over cost; what the network adds is not in it.
//
//   engine_benchmark --benchmark_repetitions=5
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/check.h"
#include "base/clock.h"
#include "benchmark/benchmark.h"
#include "engine/engine.h"
#include "heads/kv_geometry.h"
#include "model/model.h"
#include "tests/bench/bench_data.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

constexpr int32_t kPrompt = 128;
constexpr int32_t kTokens = 128;
const char kModel[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

std::unique_ptr<Model> LoadOrDie(Backend* backend) {
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load({.path = kModel}, backend);
  CHECK(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<int32_t> Prompt(int stream, int32_t vocab) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < kPrompt; ++i) {
    ids.push_back((i * 37 + stream * 101) % vocab);
  }
  return ids;
}

class CountingSink final : public RequestSink {
 public:
  void OnOutput(Output output) override {
    tokens += static_cast<int64_t>(output.tokens.size());
    text_bytes += static_cast<int64_t>(output.text.size());
  }
  void OnEnd(Ending ending) override { CHECK(ending.status.ok()); }

  int64_t tokens = 0;
  int64_t text_bytes = 0;
};

int64_t Tokens(const std::vector<std::shared_ptr<CountingSink>>& sinks) {
  int64_t tokens = 0;
  for (const auto& sink : sinks) tokens += sink->tokens;
  return tokens;
}

void SetTimePerToken(benchmark::State& state, int64_t tokens) {
  state.counters["time/token"] = benchmark::Counter(
      static_cast<double>(tokens),
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void BM_Engine(benchmark::State& state) {
  const auto streams = static_cast<int>(state.range(0));
  std::unique_ptr<Backend> backend =
      CreateCpuBackend({.threads = BenchThreads()});
  std::unique_ptr<Model> loaded = LoadOrDie(backend.get());
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(kModel);
  CHECK(tokenizer.ok()) << tokenizer.status();
  const int32_t vocab = loaded->config().vocab;
  std::vector<EngineModel> models(1);
  models[0].name = "mailroom";
  models[0].model = std::move(loaded);
  models[0].tokenizer = std::make_shared<Tokenizer>(*std::move(tokenizer));
  models[0].max_context = kPrompt + kTokens;
  const SystemClock clock;
  auto engine = Engine::Create({.kv_pool_bytes = int64_t{256} << 20},
                               std::move(backend), std::move(models), &clock);
  CHECK(engine.ok()) << engine.status();

  int64_t decoded = 0;
  for (auto _ : state) {
    state.PauseTiming();
    std::vector<std::shared_ptr<CountingSink>> sinks;
    for (int stream = 0; stream < streams; ++stream) {
      sinks.push_back(std::make_shared<CountingSink>());
      Request request;
      request.prompt = Prompt(stream, vocab);
      request.sampling.max_tokens = kTokens;
      request.sampling.ignore_eos = true;
      CHECK((*engine)->Submit(std::move(request), sinks.back()).ok());
    }
    // Prompts are computed in turn: the last one starts last.
    while (sinks.back()->tokens == 0) (*engine)->StepOnce();
    decoded -= Tokens(sinks);
    state.ResumeTiming();
    while ((*engine)->StepOnce()) {
    }
    CHECK(Tokens(sinks) == int64_t{streams} * kTokens);
    decoded += Tokens(sinks);
  }
  SetTimePerToken(state, decoded);
}

void BM_Model(benchmark::State& state) {
  const auto streams = static_cast<size_t>(state.range(0));
  std::unique_ptr<Backend> backend =
      CreateCpuBackend({.threads = BenchThreads()});
  std::unique_ptr<Model> model = LoadOrDie(backend.get());
  const int64_t block_bytes = model->geometries()[0].block_bytes();
  const int64_t blocks = KvGeometry::BlocksFor(kPrompt + kTokens);
  std::unique_ptr<Buffer> arena =
      *backend->Allocate(static_cast<int64_t>(streams) * blocks * block_bytes);
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < static_cast<int64_t>(streams) * blocks; ++i) {
    offsets.push_back(i * block_bytes);
  }
  std::vector<int32_t> tokens(streams, 1);
  Batch batch;
  std::vector<SampleRow> rows(streams);
  for (size_t i = 0; i < streams; ++i) {
    batch.sequences.push_back(
        {.tokens = absl::MakeConstSpan(&tokens[i], 1),
         .blocks = {absl::MakeConstSpan(offsets).subspan(
             i * static_cast<size_t>(blocks), static_cast<size_t>(blocks))},
         .logits_rows = 1});
    rows[i].logits_row = static_cast<int32_t>(i);
  }
  for (auto _ : state) {
    for (int32_t past = kPrompt; past < kPrompt + kTokens - 1; ++past) {
      for (BatchSequence& sequence : batch.sequences) sequence.past = past;
      const absl::StatusOr<Logits> logits =
          model->Forward(batch, arena->data());
      CHECK(logits.ok()) << logits.status();
      const std::vector<SampleResult> results =
          backend->Sample(logits->data, logits->vocab, rows);
      for (size_t i = 0; i < streams; ++i) tokens[i] = results[i].token;
    }
  }
  SetTimePerToken(state, state.iterations() * static_cast<int64_t>(streams) *
                             (kTokens - 1));
}

BENCHMARK(BM_Engine)->Arg(1)->Arg(16)->UseRealTime();
BENCHMARK(BM_Model)->Arg(1)->Arg(16)->UseRealTime();

}  // namespace
}  // namespace headcount

BENCHMARK_MAIN();
