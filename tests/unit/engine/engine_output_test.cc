// What a model says through the engine: equal to golden values, to direct use
// of the model, and to itself in any company.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model.h"
#include "tests/golden/model_golden.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

using ::testing::SizeIs;

// Greedy tokens beyond a choice as close as this may differ.
constexpr double kMargin = 0.01;

constexpr int kMailroomHeads = 72;  // query heads of all layers

GoldenModel GoldenOf(const std::string& name) {
  for (GoldenModel& model : ReadGoldenModels()) {
    if (model.name == name) return model;
  }
  ADD_FAILURE() << "no golden values of " << name;
  return {};
}

// All masks of a model run as models of one engine, all cases at once.
void ExpectGoldenGreedyTokens(const std::string& name) {
  const GoldenModel golden = GoldenOf(name);
  std::vector<ModelSpec> specs;
  std::vector<std::string> masks;
  for (const auto& [mask_name, mask] : golden.masks) {
    specs.push_back({.path = golden.path, .mask = mask});
    masks.push_back(mask_name);
  }
  std::vector<Request> requests;
  for (const GoldenCase& golden_case : golden.cases) {
    Request request = MakeRequest(
        golden_case.ids, static_cast<int32_t>(golden_case.greedy.size()));
    request.model = static_cast<int>(
        std::find(masks.begin(), masks.end(), golden_case.mask) -
        masks.begin());
    request.sampling.ignore_eos = true;
    requests.push_back(request);
  }
  const SystemClock clock;
  const std::unique_ptr<Engine> engine =
      MakeEngine(specs, {.kv_pool_bytes = 32 * kSlab}, &clock);
  const std::vector<Heard> heard = RunAll(engine.get(), requests);
  int compared = 0;
  for (size_t i = 0; i < golden.cases.size(); ++i) {
    const GoldenCase& expected = golden.cases[i];
    ASSERT_THAT(heard[i].tokens, SizeIs(expected.greedy.size()));
    for (size_t k = 0; k < expected.greedy.size(); ++k, ++compared) {
      if (expected.greedy_margins[k] < kMargin) break;
      ASSERT_EQ(heard[i].tokens[k].id, expected.greedy[k])
          << expected.name << ", token " << k;
    }
  }
  EXPECT_GT(compared, 100);
  EXPECT_EQ(engine->Snapshot().pool.used, 0);
}

TEST(EngineOutputTest, GreedyTokensOfATinyModelEqualTheGoldenOnes) {
  ExpectGoldenGreedyTokens("llama_gqa");
}

TEST(EngineOutputTest, GreedyTokensOfOtherArchitecturesEqualTheGoldenOnes) {
  ExpectGoldenGreedyTokens("mistral_window");
  ExpectGoldenGreedyTokens("qwen2");
  ExpectGoldenGreedyTokens("qwen3");
}

TEST(EngineOutputTest, GreedyTokensOfMailroomEqualTheGoldenOnes) {
  ExpectGoldenGreedyTokens("mailroom");
}

// Sixteen requests in which every pair of settings of temperature, top-k,
// top-p, min-p and the rest meets: an orthogonal array over GF(4).
std::vector<Request> AllPairs() {
  constexpr int kTimes2[] = {0, 2, 3, 1};  // in GF(4), where plus is xor
  constexpr int kTimes3[] = {0, 3, 1, 2};
  constexpr float kTemperature[] = {0.0f, 0.6f, 1.0f, 1.6f};
  constexpr int32_t kTopK[] = {0, 1, 5, 200};
  constexpr float kTopP[] = {1.0f, 0.95f, 0.5f, 0.8f};
  constexpr float kMinP[] = {0.0f, 0.02f, 0.1f, 0.3f};
  std::vector<Request> requests;
  for (int i = 0; i < 16; ++i) {
    const int a = i % 4;
    const int b = i / 4;
    Request request = MakeRequest(
        MailTokens(static_cast<size_t>(7 * i), static_cast<size_t>(20 + 3 * i)),
        30 + i);
    SamplingParams& sampling = request.sampling;
    sampling.temperature = kTemperature[a];
    sampling.top_k = kTopK[b];
    sampling.top_p = kTopP[a ^ b];
    sampling.min_p = kMinP[a ^ kTimes2[b]];
    sampling.seed = static_cast<uint64_t>(i) * 1000003;
    sampling.logprobs = a != 1;
    sampling.top_logprobs = b;
    switch (a ^ kTimes3[b]) {
      case 0:
        sampling.ignore_eos = true;
        break;
      case 1:
        sampling.stops = {"the ", "\n"};
        sampling.min_tokens = 5;
        break;
      case 2:
        sampling.repetition_penalty = 1.3f;
        sampling.frequency_penalty = 0.4f;
        sampling.stop_ids = {203};
        break;
      default:
        sampling.presence_penalty = 0.7f;
        sampling.logit_bias = {{364, 4.0f}, {370, -INFINITY}};
    }
    requests.push_back(request);
  }
  return requests;
}

// AllPairs, and requests that are not of that kind: choices, scores, gates.
std::vector<Request> AllKinds() {
  std::vector<Request> requests = AllPairs();
  for (size_t i = 0; i < 4; ++i) {
    Request choice = MakeRequest(MailTokens(i, 25 + i), 30);
    choice.sampling.temperature = 1.5f;
    choice.sampling.seed = i;
    choice.sampling.logprobs = true;
    choice.sampling.choices = {MailTokens(i, 20), MailTokens(i, 4),
                               MailTokens(i + 1, 9)};
    requests.push_back(choice);
    Request score = MakeScoreRequest(
        MailTokens(i, 30 + i),
        {MailTokens(9, 40), {7}, MailTokens(80, 3), MailTokens(5, 20 + i)});
    requests.push_back(score);
    Request gated = MakeRequest(MailTokens(2 * i, 22), 25);
    gated.sampling.ignore_eos = true;
    gated.sampling.logprobs = true;
    for (int head = 0; head < kMailroomHeads; ++head) {
      gated.head_gates.push_back(static_cast<float>(head % 5) / 4);
    }
    requests.push_back(gated);
    score.head_gates = gated.head_gates;
    requests.push_back(score);
  }
  return requests;
}

std::vector<Heard> RunOneByOne(const std::vector<Request>& requests) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeEngine(
      {{.path = MailroomPath()}}, {.kv_pool_bytes = 8 * kSlab}, &clock);
  std::vector<Heard> heard;
  for (const Request& request : requests) {
    heard.push_back(RunAll(engine.get(), {request}).front());
  }
  return heard;
}

void ExpectSameAnswers(const std::vector<Heard>& one_by_one,
                       const std::vector<Heard>& together) {
  ASSERT_EQ(one_by_one.size(), together.size());
  for (size_t i = 0; i < together.size(); ++i) {
    EXPECT_TRUE(SameAnswer(one_by_one[i], together[i]))
        << "request " << i << ": '" << one_by_one[i].text << "' and '"
        << together[i].text << "'";
  }
}

TEST(EngineOutputTest, ABatchAnswersAsItsRequestsDoAlone) {
  const std::vector<Request> requests = AllKinds();
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeEngine(
      {{.path = MailroomPath()}}, {.kv_pool_bytes = 32 * kSlab}, &clock);
  const std::vector<Heard> together = RunAll(engine.get(), requests);
  EXPECT_EQ(engine->Snapshot().preemptions, 0u);
  ExpectSameAnswers(RunOneByOne(requests), together);
}

TEST(EngineOutputTest, PreemptionAndChunksChangeNoAnswer) {
  const std::vector<Request> requests = AllKinds();
  const SystemClock clock;
  // One slab of 21 blocks, 336 tokens, for requests of some 2,000.
  const std::unique_ptr<Engine> engine = MakeEngine(
      {{.path = MailroomPath()}},
      {.kv_pool_bytes = kSlab, .step_tokens = 24, .max_queued_tokens = 1 << 20},
      &clock);
  const std::vector<Heard> together = RunAll(engine.get(), requests);
  EXPECT_GT(engine->Snapshot().preemptions, 0u);
  ExpectSameAnswers(RunOneByOne(requests), together);
}

TEST(EngineOutputTest, GatesOfOneChangeNoBitAndOthersDo) {
  Request request = MakeRequest(MailTokens(0, 30), 20);
  request.sampling.ignore_eos = true;
  request.sampling.logprobs = true;
  Request ones = request;
  ones.head_gates.assign(kMailroomHeads, 1.0f);
  Request halves = request;
  halves.head_gates.assign(kMailroomHeads, 0.5f);
  const std::vector<Heard> heard = RunOneByOne({request, ones, halves});
  EXPECT_TRUE(SameAnswer(heard[0], heard[1]));
  EXPECT_FALSE(SameAnswer(heard[0], heard[2]));
}

TEST(EngineOutputTest, LogprobsEqualTheSoftmaxOfADirectForward) {
  Request request = MakeRequest(MailTokens(3, 70), 12);
  request.sampling.temperature = 0.8f;  // log-probs are those without it
  request.sampling.seed = 5;
  request.sampling.ignore_eos = true;
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 3;
  const SystemClock clock;
  const std::unique_ptr<Engine> engine =
      MakeEngine({{.path = MailroomPath()}},
                 {.kv_pool_bytes = 4 * kSlab, .step_tokens = 32}, &clock);
  const Heard heard = RunAll(engine.get(), {request}).front();

  std::vector<int32_t> tokens = request.prompt;
  for (const int32_t id : heard.ids()) tokens.push_back(id);
  const std::vector<std::vector<double>> direct = DirectScores().Of(tokens);
  constexpr double kError = 1e-4;
  ASSERT_THAT(heard.tokens, SizeIs(12));
  for (size_t i = 0; i < heard.tokens.size(); ++i) {
    const GeneratedToken& token = heard.tokens[i];
    const std::vector<double>& row = direct[69 + i];
    EXPECT_NEAR(token.logprob, row[static_cast<size_t>(token.id)], kError);
    ASSERT_THAT(token.top, SizeIs(3));
    EXPECT_NEAR(token.top[0].logprob, *std::max_element(row.begin(), row.end()),
                kError);
    for (const TopLogprob& top : token.top) {
      EXPECT_NEAR(top.logprob, row[static_cast<size_t>(top.token)], kError);
    }
  }
}

}  // namespace
}  // namespace headcount
