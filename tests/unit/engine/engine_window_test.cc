// A model with sliding windows through the engine: the same tokens over many
// windows as without giving anything back, and little memory.
#include <algorithm>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/kv_geometry.h"
#include "tests/unit/engine/engine_fixture.h"
#include "tests/unit/model/reference_backend.h"

namespace headcount {
namespace {

using ::testing::SizeIs;

constexpr int kWindow = 8;
constexpr int kPrompt = 100;
constexpr int kGenerated = 400;

std::string ModelPath() { return TinyPath("mistral_window"); }

Request LongRequest(size_t start, size_t prompt, int32_t max_tokens) {
  std::vector<int32_t> tokens = MailTokens(start, prompt);
  for (int32_t& token : tokens) token %= 320;
  Request request = MakeRequest(tokens, max_tokens);
  request.sampling.ignore_eos = true;
  return request;
}

// Logits after each of `tokens` by the plain double-precision backend, in one
// step with every block there.
std::vector<std::vector<float>> ReferenceLogits(
    const std::vector<int32_t>& tokens) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  const auto rows = static_cast<int32_t>(tokens.size());
  const std::unique_ptr<Model> model = Model::Load({.path = ModelPath(),
                                                    .kv_dtype = KvDtype::kF32,
                                                    .max_step_tokens = rows,
                                                    .max_logits_rows = rows},
                                                   backend.get())
                                           .value();
  const int64_t block_bytes = model->geometries()[0].block_bytes();
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < KvGeometry::BlocksFor(rows); ++i) {
    offsets.push_back(i * block_bytes);
  }
  const std::unique_ptr<Buffer> arena =
      backend->Allocate(static_cast<int64_t>(offsets.size()) * block_bytes)
          .value();
  Batch batch;
  batch.sequences = {
      {.tokens = tokens, .blocks = {offsets}, .logits_rows = rows}};
  const Logits logits = model->Forward(batch, arena->data()).value();
  std::vector<std::vector<float>> out;
  for (int64_t row = 0; row < logits.rows; ++row) {
    const float* begin = logits.data + row * logits.vocab;
    out.emplace_back(begin, begin + logits.vocab);
  }
  return out;
}

TEST(EngineWindowTest, FiftyWindowsInTheMemoryOfOne) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine =
      MakeEngine({{.path = ModelPath()}},
                 {.kv_pool_bytes = kSlab, .step_tokens = 32}, &clock);
  const int64_t block_bytes =
      engine->model(0)->model->geometries()[0].block_bytes();
  const Request request = LongRequest(0, kPrompt, kGenerated);
  const auto recorder = std::make_shared<Recorder>();
  ASSERT_TRUE(engine->Submit(request, recorder).ok());
  int64_t most_in_prompt = 0;
  int64_t most_decoding = 0;
  while (engine->StepOnce()) {
    const int64_t bytes = engine->Snapshot().models[0].kv.used;
    int64_t& most =
        recorder->heard().tokens.empty() ? most_in_prompt : most_decoding;
    most = std::max(most, bytes);
  }
  EXPECT_EQ(most_in_prompt,
            KvGeometry::MostBlocks({.window = kWindow}, 32) * block_bytes);
  EXPECT_EQ(most_decoding, 2 * block_bytes);  // 8 tokens across two blocks
  EXPECT_EQ(engine->Snapshot().pool.used, 0);

  // Each token is the best of its context; nearly so where two are as good.
  std::vector<int32_t> tokens = request.prompt;
  for (const int32_t id : recorder->heard().ids()) tokens.push_back(id);
  ASSERT_THAT(tokens, SizeIs(kPrompt + kGenerated));
  const std::vector<std::vector<float>> logits = ReferenceLogits(tokens);
  for (size_t i = kPrompt; i < tokens.size(); ++i) {
    const std::vector<float>& row = logits[i - 1];
    EXPECT_NEAR(row[static_cast<size_t>(tokens[i])],
                *std::max_element(row.begin(), row.end()), 1e-3)
        << "token " << i;
  }
}

// Beside a model without windows that fills the pool, so that the windowed
// sequences, the newest, are preempted.
TEST(EngineWindowTest, CompanyChunksAndPreemptionChangeNoAnswer) {
  std::vector<Request> requests;
  for (size_t i = 0; i < 3; ++i) {
    Request request = MakeRequest(MailTokens(i * 40, 200), 300);
    request.sampling.ignore_eos = true;
    requests.push_back(request);
  }
  for (size_t i = 0; i < 6; ++i) {
    Request request = LongRequest(i * 7, 20 + 30 * i, 150);
    request.model = 1;
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.9f;
    request.sampling.seed = i;
    request.sampling.logprobs = true;
    requests.push_back(request);
  }
  const std::vector<ModelSpec> models = {{.path = MailroomPath()},
                                         {.path = ModelPath()}};
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeEngine(
      models, {.kv_pool_bytes = 3 * kSlab, .step_tokens = 24}, &clock);
  const std::vector<Heard> together = RunAll(engine.get(), requests);
  EXPECT_GT(engine->Snapshot().preemptions, 0u);
  EXPECT_EQ(engine->Snapshot().pool.used, 0);

  const std::unique_ptr<Engine> alone = MakeEngine(
      models, {.kv_pool_bytes = 8 * kSlab, .step_tokens = 256}, &clock);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE(
        SameAnswer(together[i], RunAll(alone.get(), {requests[i]}).front()))
        << i;
  }
  EXPECT_EQ(alone->Snapshot().preemptions, 0u);
}

// A candidate that is longer than the window leaves the prompt's last tokens
// behind, which the next one has to see again.
TEST(EngineWindowTest, EveryCandidateSeesThePromptsLastTokens) {
  const auto tokens = [](size_t start, size_t count) {
    return LongRequest(start, count, 0).prompt;
  };
  const std::vector<int32_t> prompt = tokens(3, 45);
  const std::vector<std::vector<int32_t>> candidates = {
      tokens(60, 40), tokens(9, 3), {7}, tokens(20, 33)};
  const SystemClock clock;
  const std::unique_ptr<Engine> engine =
      MakeEngine({{.path = ModelPath()}},
                 {.kv_pool_bytes = kSlab, .step_tokens = 32}, &clock);
  const Heard together =
      RunAll(engine.get(), {MakeScoreRequest(prompt, candidates)}).front();
  EXPECT_EQ(engine->Snapshot().pool.used, 0);
  EXPECT_EQ(engine->Snapshot().preemptions, 0u);

  ASSERT_THAT(together.scores, SizeIs(1));
  ASSERT_THAT(together.scores[0].logprobs, SizeIs(candidates.size()));
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Heard alone =
        RunAll(engine.get(), {MakeScoreRequest(prompt, {candidates[i]})})
            .front();
    ASSERT_THAT(alone.scores, SizeIs(1));
    EXPECT_EQ(together.scores[0].logprobs[i], alone.scores[0].logprobs[0]) << i;
    EXPECT_THAT(alone.scores[0].logprobs[0], SizeIs(candidates[i].size()));
  }
}

}  // namespace
}  // namespace headcount
