#include "engine/generation.h"

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr int32_t kEos = 1;
constexpr int32_t kMaxTokens = 100;

// A generation whose tokens the test draws.
class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest()
      : tokenizer_(Tokenizer::Load(MailroomPath()).value()),
        recorder_(std::make_shared<Recorder>()),
        request_(MakeRequest({10, 11, 12}, 50)) {}

  // Starts with the whole prompt in one step.
  void Begin() {
    sequence_ = std::make_unique<Sequence>(1, request_, kMaxTokens, 0,
                                           /*may_share_prefix=*/false);
    generation_ =
        std::make_unique<Generation>(request_, std::vector<int32_t>{kEos},
                                     &tokenizer_, recorder_, absl::UnixEpoch());
  }

  StepPart NextPart() const {
    return {sequence_.get(), sequence_->remaining(),
            sequence_->LogitsRows(sequence_->remaining())};
  }

  std::vector<SampleRow> Rows() const {
    std::vector<SampleRow> rows;
    generation_->AppendRows(NextPart(), 0, &rows);
    return rows;
  }

  // One step that draws `token`; whether the sequence goes on.
  bool Draw(int32_t token) {
    SampleResult drawn;
    drawn.token = token;
    drawn.logprob = -0.5f;
    const StepResult result =
        generation_->Take(NextPart(), {drawn}, absl::UnixEpoch());
    EXPECT_EQ(result.token, token);
    sequence_->computed = sequence_->length();
    sequence_->next_logits = sequence_->length();
    sequence_->tokens.push_back(token);
    generation_->Deliver();
    EXPECT_EQ(result.end.has_value(), generation_->ended());
    return !generation_->ended();
  }

  // Draws the tokens of `text` one by one until one ends it; how many.
  int DrawText(const std::string& text) {
    int drawn = 0;
    for (const int32_t id : tokenizer_.Encode(text)) {
      ++drawn;
      if (!Draw(id)) break;
    }
    return drawn;
  }

  Heard heard() const { return recorder_->heard(); }

  Tokenizer tokenizer_;
  std::shared_ptr<Recorder> recorder_;
  Request request_;
  std::unique_ptr<Sequence> sequence_;
  std::unique_ptr<Generation> generation_;
};

TEST_F(GenerationTest, DrawsWithTheSettingsOfTheRequest) {
  request_.sampling.temperature = 0.5f;
  request_.sampling.top_k = 7;
  request_.sampling.top_p = 0.25f;
  request_.sampling.min_p = 0.125f;
  request_.sampling.seed = 99;
  request_.sampling.top_logprobs = 2;
  Begin();
  const std::vector<SampleRow> rows = Rows();
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].logits_row, 0);
  EXPECT_EQ(rows[0].temperature, 0.5f);
  EXPECT_EQ(rows[0].top_k, 7);
  EXPECT_EQ(rows[0].top_p, 0.25f);
  EXPECT_EQ(rows[0].min_p, 0.125f);
  EXPECT_EQ(rows[0].seed, 99u);
  EXPECT_EQ(rows[0].top_logprobs, 2);
  EXPECT_THAT(rows[0].banned, IsEmpty());
  EXPECT_THAT(rows[0].scored, IsEmpty());
}

TEST_F(GenerationTest, ThePositionOfADrawIsThatOfItsToken) {
  Begin();
  EXPECT_EQ(Rows()[0].position, 3u);
  Draw(20);
  EXPECT_EQ(Rows()[0].position, 4u);
}

TEST_F(GenerationTest, FirstTokensAreScoredTogetherAndTheRestOneByOne) {
  request_.sampling.max_tokens = 0;
  request_.continuations = {{30}, {31, 32, 33}, {34}};
  Begin();
  const std::vector<SampleRow> rows = Rows();
  ASSERT_THAT(rows, SizeIs(3));
  EXPECT_THAT(rows[0].scored, ElementsAre(30, 31, 34));
  EXPECT_EQ(rows[0].logits_row, 0);
  EXPECT_THAT(rows[1].scored, ElementsAre(32));
  EXPECT_THAT(rows[2].scored, ElementsAre(33));
  EXPECT_EQ(rows[2].logits_row, 2);
}

TEST_F(GenerationTest, ScoresComeOnceWhenEveryContinuationIsRead) {
  request_.sampling.max_tokens = 0;
  request_.continuations = {{30}, {31, 32}, {33, 34}};
  Begin();
  std::vector<SampleResult> results(2);
  results[0].scored = {-1, -2, -3};
  results[1].scored = {-4};
  StepResult step = generation_->Take(NextPart(), results, absl::UnixEpoch());
  EXPECT_EQ(step.continuation, 2u);
  EXPECT_FALSE(step.end.has_value());
  generation_->Deliver();
  EXPECT_THAT(heard().scores, IsEmpty());
  sequence_->computed = sequence_->length();
  sequence_->Follow(2);
  ASSERT_THAT(Rows(), SizeIs(1));
  EXPECT_THAT(Rows()[0].scored, ElementsAre(34));
  results.resize(1);
  results[0].scored = {-5};
  step = generation_->Take(NextPart(), results, absl::UnixEpoch());
  EXPECT_EQ(step.end, EndCause::kLength);
  generation_->Deliver();
  ASSERT_THAT(heard().scores, SizeIs(1));
  EXPECT_THAT(
      heard().scores[0].logprobs,
      ElementsAre(ElementsAre(-1), ElementsAre(-2, -4), ElementsAre(-3, -5)));
  EXPECT_FALSE(heard().late);
  EXPECT_EQ(heard().ending().prompt_tokens, 3 + 1 + 2 + 2);
}

// (token, times in the answer) of each.
std::vector<std::pair<int32_t, int32_t>> Pairs(
    absl::Span<const TokenUse> uses) {
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (const TokenUse& use : uses) pairs.emplace_back(use.token, use.generated);
  return pairs;
}

TEST_F(GenerationTest, PenaltiesSeeThePromptAndWhatWasGenerated) {
  using Pair = std::pair<int32_t, int32_t>;
  request_.prompt = {12, 10, 12};
  request_.sampling.repetition_penalty = 1.2f;
  request_.sampling.frequency_penalty = 0.5f;
  request_.sampling.presence_penalty = 0.25f;
  Begin();
  EXPECT_EQ(Rows()[0].repetition_penalty, 1.2f);
  EXPECT_EQ(Rows()[0].frequency_penalty, 0.5f);
  EXPECT_EQ(Rows()[0].presence_penalty, 0.25f);
  EXPECT_THAT(Pairs(Rows()[0].uses), ElementsAre(Pair{10, 0}, Pair{12, 0}));
  for (const int32_t token : {11, 12, 30, 11}) Draw(token);
  EXPECT_THAT(Pairs(Rows()[0].uses),
              ElementsAre(Pair{10, 0}, Pair{11, 2}, Pair{12, 1}, Pair{30, 1}));
}

TEST_F(GenerationTest, NothingIsCountedWithoutAPenalty) {
  Begin();
  Draw(11);
  EXPECT_THAT(Rows()[0].uses, IsEmpty());
}

TEST_F(GenerationTest, BiasesComeByRisingToken) {
  request_.sampling.logit_bias = {{40, 1.5f}, {7, -INFINITY}};
  Begin();
  const std::vector<SampleRow> rows = Rows();
  ASSERT_THAT(rows[0].biases, SizeIs(2));
  EXPECT_EQ(rows[0].biases[0].token, 7);
  EXPECT_EQ(rows[0].biases[0].bias, -INFINITY);
  EXPECT_EQ(rows[0].biases[1].token, 40);
  EXPECT_EQ(rows[0].biases[1].bias, 1.5f);
}

TEST_F(GenerationTest, ADrawWithoutAnyTokenLeftNamesTheField) {
  Begin();
  const SampleResult none;
  const StepResult result =
      generation_->Take(NextPart(), {none}, absl::UnixEpoch());
  EXPECT_EQ(result.end, EndCause::kError);
  generation_->Deliver();
  EXPECT_EQ(heard().ending().status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(heard().ending().status.message()),
              ::testing::StartsWith("sampling.logit_bias: "));
}

TEST_F(GenerationTest, AChoiceEndsItWithoutAnEndOfText) {
  const std::vector<int32_t> spam = tokenizer_.Encode(" spam and more");
  const std::vector<int32_t> ham = tokenizer_.Encode(" ham");
  request_.sampling.choices = {ham, spam};
  Begin();
  EXPECT_THAT(Rows()[0].allowed,
              ::testing::UnorderedElementsAre(ham[0], spam[0]));
  for (size_t i = 0; i < spam.size(); ++i) {
    if (i > 0) {
      EXPECT_THAT(Rows()[0].allowed, ElementsAre(spam[i]));
    }
    EXPECT_EQ(Draw(spam[i]), i + 1 < spam.size());
  }
  EXPECT_EQ(heard().text, " spam and more");
  EXPECT_EQ(heard().ending().cause, EndCause::kStop);
  EXPECT_EQ(heard().ending().choice, 1);
  EXPECT_FALSE(heard().ending().stop_id.has_value());
}

TEST_F(GenerationTest, EndOfTextEndsAChoiceThatBeginsAnother) {
  request_.sampling.choices = {{40, 41}, {40}};
  Begin();
  Draw(40);
  EXPECT_THAT(Rows()[0].allowed, ElementsAre(kEos, 41));
  EXPECT_FALSE(Draw(kEos));
  EXPECT_EQ(heard().ending().choice, 1);
  EXPECT_EQ(heard().ending().stop_id, kEos);
  EXPECT_EQ(heard().text, tokenizer_.Decode(std::vector<int32_t>{40}));
}

TEST_F(GenerationTest, AStopStringAcrossTokensNeverShows) {
  request_.sampling.stops = {"tomorrow at ten"};
  Begin();
  const std::string text = "We meet tomorrow at ten o'clock";
  const std::vector<int32_t> ids = tokenizer_.Encode(text);
  for (const int32_t id : ids) {
    const bool goes_on = Draw(id);
    EXPECT_THAT(heard().text, Not(::testing::HasSubstr("tom")));
    if (!goes_on) break;
  }
  EXPECT_EQ(heard().text, "We meet ");
  EXPECT_EQ(heard().ending().cause, EndCause::kStop);
  EXPECT_EQ(heard().ending().stop_string, "tomorrow at ten");
  EXPECT_FALSE(heard().ending().stop_id.has_value());
  EXPECT_LT(heard().tokens.size(), ids.size());
  EXPECT_EQ(static_cast<size_t>(heard().ending().generated_tokens),
            heard().tokens.size());
}

TEST_F(GenerationTest, TextHeldBackForAStopStringComesOutAtTheEnd) {
  request_.sampling.stops = {"tomorrow at ten"};
  const std::string text = "We meet tomorrow at";
  request_.sampling.max_tokens =
      static_cast<int32_t>(tokenizer_.Encode(text).size());
  Begin();
  DrawText(text);
  EXPECT_EQ(heard().text, text);
  EXPECT_EQ(heard().ending().cause, EndCause::kLength);
  EXPECT_TRUE(heard().ending().stop_string.empty());
}

TEST_F(GenerationTest, AStopIdEndsItWithoutItsText) {
  request_.sampling.stop_ids = {tokenizer_.Encode("x").front()};
  Begin();
  DrawText("abc");
  EXPECT_FALSE(Draw(request_.sampling.stop_ids[0]));
  EXPECT_EQ(heard().text, "abc");
  EXPECT_EQ(heard().ending().cause, EndCause::kStop);
  EXPECT_EQ(heard().ending().stop_id, request_.sampling.stop_ids[0]);
  EXPECT_EQ(heard().ids().back(), request_.sampling.stop_ids[0]);
}

TEST_F(GenerationTest, EndOfTextEndsIt) {
  Begin();
  Draw(20);
  EXPECT_FALSE(Draw(kEos));
  EXPECT_EQ(heard().ending().cause, EndCause::kStop);
  EXPECT_EQ(heard().ending().stop_id, kEos);
}

TEST_F(GenerationTest, EndOfTextCanBeIgnoredAndGivesNoText) {
  request_.sampling.ignore_eos = true;
  Begin();
  DrawText("ab");
  EXPECT_TRUE(Draw(kEos));
  DrawText("cd");
  EXPECT_EQ(heard().text, "abcd");
}

TEST_F(GenerationTest, BeforeMinTokensStopTokensAreBanned) {
  request_.sampling.min_tokens = 2;
  request_.sampling.stop_ids = {50};
  Begin();
  EXPECT_THAT(Rows()[0].banned, ElementsAre(50, kEos));
  Draw(20);
  EXPECT_THAT(Rows()[0].banned, ElementsAre(50, kEos));
  Draw(20);
  EXPECT_THAT(Rows()[0].banned, IsEmpty());
}

TEST_F(GenerationTest, BeforeMinTokensStopStringsAreText) {
  const auto ab = static_cast<int32_t>(tokenizer_.Encode("ab").size());
  request_.sampling.min_tokens = ab;
  request_.sampling.stops = {"ab"};
  Begin();
  EXPECT_EQ(DrawText("ab"), ab);
  EXPECT_EQ(heard().text, "ab");
  DrawText("cabd");
  EXPECT_EQ(heard().text, "abc");
  EXPECT_EQ(heard().ending().cause, EndCause::kStop);
}

TEST_F(GenerationTest, TheContextEndsItWithLength) {
  request_.prompt.assign(kMaxTokens - 2, 10);
  Begin();
  EXPECT_TRUE(Draw(20));
  EXPECT_FALSE(Draw(20));
  EXPECT_EQ(heard().ending().cause, EndCause::kLength);
}

TEST_F(GenerationTest, AStopIsNamedBeforeTheLength) {
  request_.sampling.max_tokens = 1;
  Begin();
  EXPECT_FALSE(Draw(kEos));
  EXPECT_EQ(heard().ending().cause, EndCause::kStop);
}

TEST_F(GenerationTest, LogitsThatAreNotFiniteEndItWithInternal) {
  Begin();
  Draw(20);
  SampleResult bad;
  bad.finite = false;
  const StepResult result =
      generation_->Take(NextPart(), {bad}, absl::UnixEpoch());
  EXPECT_FALSE(result.token.has_value());
  EXPECT_EQ(result.end, EndCause::kError);
  generation_->Deliver();
  EXPECT_EQ(heard().ending().status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(heard().ending().generated_tokens, 1);
}

TEST_F(GenerationTest, LogprobsAreToldOnlyWhenAskedFor) {
  Begin();
  Draw(20);
  EXPECT_EQ(heard().tokens[0].logprob, 0.0f);
  request_.sampling.logprobs = true;
  Begin();
  Draw(20);
  EXPECT_EQ(heard().tokens[1].logprob, -0.5f);
}

}  // namespace
}  // namespace headcount
