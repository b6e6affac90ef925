// The services over a real channel, with an engine that does what the test
// says.
#include "service_fixture.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

// The tokens of continuation k have log-probabilities -1 - k, -2 - k, ...
void ScoreDownwards(const Request& request,
                    const std::shared_ptr<RequestSink>& sink) {
  Scores scores;
  for (size_t k = 0; k < request.continuations.size(); ++k) {
    std::vector<float>& logprobs = scores.logprobs.emplace_back();
    for (size_t i = 1; i <= request.continuations[k].size(); ++i) {
      logprobs.push_back(-static_cast<float>(i + k));
    }
  }
  sink->OnScores(std::move(scores));
  sink->OnEnd(FakeEngine::MakeEnding(
      EndCause::kLength, static_cast<int32_t>(GivenTokens(request)), 0));
}

TEST_F(ServiceTest, StreamsAnAnswer) {
  engine_->SetScript(CountToThree);
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "my-id");
  v1::GenerateRequest request = Prompt();
  request.set_logprobs(true);
  request.set_top_logprobs(1);
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(&context, request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(responses.size(), 4u);
  EXPECT_EQ(responses[0].text(), "one");
  EXPECT_EQ(responses[2].text(), " three");
  ASSERT_EQ(responses[1].tokens_size(), 1);
  EXPECT_EQ(responses[1].tokens(0).token_id(), 1);
  EXPECT_EQ(responses[1].tokens(0).logprob(), -0.5f);
  EXPECT_EQ(responses[1].tokens(0).top_logprobs(0).token_id(), 7);
  EXPECT_EQ(responses[2].finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
  EXPECT_EQ(responses[3].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(responses[3].stop_string(), "END");
  EXPECT_EQ(responses[3].usage().generated_tokens(), 3);
  EXPECT_GT(responses[3].usage().prompt_tokens(), 0);
  const auto& metadata = context.GetServerInitialMetadata();
  ASSERT_EQ(metadata.count("x-request-id"), 1u);
  EXPECT_EQ(metadata.find("x-request-id")->second, "my-id");
  EXPECT_THAT(Metrics(), HasSubstr("headcount_requests_total{model=\"mail\","
                                   "outcome=\"stop\"} 1\n"));
}

TEST_F(ServiceTest, LeavesOutLogprobsThatNobodyAskedFor) {
  engine_->SetScript(CountToThree);
  grpc::ClientContext context;
  std::vector<v1::GenerateResponse> responses;
  ASSERT_TRUE(Generate(&context, Prompt(), &responses).ok());
  EXPECT_FALSE(responses[0].tokens(0).has_logprob());
}

TEST_F(ServiceTest, ManyStreamsAtOnceEachGetTheirOwn) {
  engine_->SetScript(CountToThree);
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([this] {
      for (int round = 0; round < 20; ++round) {
        grpc::ClientContext context;
        std::vector<v1::GenerateResponse> responses;
        EXPECT_TRUE(Generate(&context, Prompt(), &responses).ok());
        EXPECT_EQ(responses.size(), 4u);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(ServiceTest, CancelsInTheEngineWhatTheClientCancels) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Prompt());
  engine_->AwaitHeld(1);
  context.TryCancel();
  engine_->AwaitCancels(1);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ExpectServes();
}

TEST_F(ServiceTest, HandsTheDeadlineToTheEngine) {
  const absl::Time before = absl::Now();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(before + absl::Seconds(30)));
  const auto reader = inference_->Generate(&context, Prompt());
  const absl::Time deadline = engine_->AwaitHeld(1).first.deadline;
  EXPECT_GT(deadline, before + absl::Seconds(25));
  EXPECT_LT(deadline, before + absl::Seconds(35));
  context.TryCancel();
  engine_->AwaitCancels(1);

  grpc::ClientContext endless;
  const auto other = inference_->Generate(&endless, Prompt());
  engine_->AwaitHeld(1);
  EXPECT_LE(engine_->last_request().deadline, absl::Now() + kMaxDeadline);
  endless.TryCancel();
  engine_->AwaitCancels(2);
}

TEST_F(ServiceTest, EndsAReaderThatNeverReads) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Prompt());
  const std::shared_ptr<RequestSink> sink = engine_->AwaitHeld(1).second;
  // Until the transport and the outbox hold no more.
  while (engine_->num_cancelled() == 0) {
    Output output;
    output.text = std::string(16 << 10, 'x');
    output.tokens.push_back({1, 0.0f, {}});
    sink->OnOutput(std::move(output));
  }
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("slow reader"));
  ExpectServes();
}

TEST_F(ServiceTest, ScoresAContinuation) {
  engine_->SetScript(ScoreDownwards);
  grpc::ClientContext context;
  v1::ScoreRequest request;
  request.set_model("mail");
  request.mutable_prompt_tokens()->add_ids(1);
  for (const int id : {4, 5, 6}) {
    request.mutable_continuation_tokens()->add_ids(id);
  }
  v1::ScoreResponse response;
  const grpc::Status status = inference_->Score(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.tokens_size(), 3);
  EXPECT_EQ(response.tokens(2).token_id(), 6);
  EXPECT_EQ(response.tokens(2).logprob(), -3.0f);
  EXPECT_EQ(response.total_logprob(), -6.0);
  EXPECT_EQ(response.mean_nll(), 2.0);
  EXPECT_NEAR(response.perplexity(), 7.389056, 1e-6);
  EXPECT_EQ(response.candidates_size(), 0);
  EXPECT_EQ(response.usage().prompt_tokens(), 4);
}

TEST_F(ServiceTest, ScoresCandidatesInOrder) {
  engine_->SetScript(ScoreDownwards);
  grpc::ClientContext context;
  v1::ScoreRequest request;
  request.set_model("mail");
  request.mutable_prompt_tokens()->add_ids(1);
  request.add_candidates()->set_text("spam");
  v1::TokenIds* tokens = request.add_candidates()->mutable_tokens();
  tokens->add_ids(8);
  tokens->add_ids(9);
  v1::ScoreResponse response;
  const grpc::Status status = inference_->Score(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.candidates_size(), 2);
  EXPECT_EQ(response.candidates(0).tokens_size(), 1);
  EXPECT_EQ(response.candidates(0).total_logprob(), -1.0);
  ASSERT_EQ(response.candidates(1).tokens_size(), 2);
  EXPECT_EQ(response.candidates(1).tokens(1).token_id(), 9);
  EXPECT_EQ(response.candidates(1).tokens(1).logprob(), -3.0f);
  EXPECT_EQ(response.candidates(1).total_logprob(), -5.0);
  EXPECT_EQ(response.candidates(1).mean_nll(), 2.5);
  EXPECT_NEAR(response.candidates(1).perplexity(), 12.182494, 1e-6);
  EXPECT_EQ(response.tokens_size(), 0);
  EXPECT_EQ(response.usage().prompt_tokens(), 4);
}

TEST_F(ServiceTest, SaysWhichChoiceTheAnswerIs) {
  engine_->SetScript(
      [](const Request& request, const std::shared_ptr<RequestSink>& sink) {
        EXPECT_EQ(request.sampling.choices.size(), 2u);
        Ending ending = FakeEngine::MakeEnding(EndCause::kStop, 1, 1);
        ending.choice = 1;
        sink->OnEnd(std::move(ending));
      });
  grpc::ClientContext context;
  v1::GenerateRequest request = Prompt();
  request.add_choices("spam");
  request.add_choices("ham");
  std::vector<v1::GenerateResponse> responses;
  ASSERT_TRUE(Generate(&context, request, &responses).ok());
  ASSERT_EQ(responses.size(), 1u);
  EXPECT_TRUE(responses[0].has_choice());
  EXPECT_EQ(responses[0].choice(), 1);
  EXPECT_EQ(responses[0].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(responses[0].stopped_by_case(),
            v1::GenerateResponse::STOPPED_BY_NOT_SET);
}

TEST_F(ServiceTest, ClassifiesInputsInOrder) {
  engine_->SetScript(ScoreDownwards);
  for (const char* model : {"mail", "wordy"}) {
    grpc::ClientContext context;
    v1::ClassifyRequest request;
    request.set_model(model);
    for (const char* input : {"a", "b b b", "c c"}) request.add_inputs(input);
    v1::ClassifyResponse response;
    const grpc::Status status =
        inference_->Classify(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(response.results_size(), 3);
    for (const v1::Classification& result : response.results()) {
      EXPECT_EQ(result.label(), "spam");
      float sum = 0;
      for (const auto& label : result.labels()) sum += label.probability();
      EXPECT_NEAR(sum, 1.0f, 1e-6);
    }
    EXPECT_GT(response.results(1).prompt_tokens(),
              response.results(0).prompt_tokens());
  }
}

TEST_F(ServiceTest, CancelsEveryInputOfAClassify) {
  grpc::ClientContext context;
  std::thread cancels([&] {
    engine_->AwaitHeld(5);
    context.TryCancel();
  });
  v1::ClassifyRequest request;
  request.set_model("mail");
  for (int i = 0; i < 5; ++i) request.add_inputs("x");
  v1::ClassifyResponse response;
  EXPECT_EQ(inference_->Classify(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  engine_->AwaitCancels(5);
  cancels.join();
  ExpectServes();
}

TEST_F(ServiceTest, OneFailedInputFailsTheClassify) {
  std::thread fails([this] {
    Ending ending = FakeEngine::MakeEnding(EndCause::kError, 3, 0);
    ending.status = absl::InternalError("logits are not numbers");
    engine_->EndNewest(3, std::move(ending));
  });
  grpc::ClientContext context;
  v1::ClassifyRequest request;
  request.set_model("mail");
  for (int i = 0; i < 3; ++i) request.add_inputs("x");
  v1::ClassifyResponse response;
  const grpc::Status status =
      inference_->Classify(&context, request, &response);
  fails.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message(), "inputs[2]: logits are not numbers");
}

TEST_F(ServiceTest, TokenizesAndBack) {
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  request.set_model("mail");
  request.set_text("Hello <|bos|> world");
  v1::TokenizeResponse ids;
  ASSERT_TRUE(inference_->Tokenize(&context, request, &ids).ok());
  EXPECT_EQ(std::vector<int32_t>(ids.ids().begin(), ids.ids().end()),
            MailroomTokenizer()->Encode(request.text()));
  v1::DetokenizeRequest back;
  back.set_model("mail");
  *back.mutable_ids() = ids.ids();
  grpc::ClientContext back_context;
  v1::DetokenizeResponse text;
  ASSERT_TRUE(inference_->Detokenize(&back_context, back, &text).ok());
  EXPECT_EQ(text.text(), request.text());
}

TEST_F(ServiceTest, ListsModels) {
  grpc::ClientContext context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(model_stub_->ListModels(&context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_EQ(list.models(0).name(), "mail");
  EXPECT_EQ(list.models(0).state(), v1::Model::STATE_READY);
  EXPECT_EQ(list.models(0).layers_size(), 0);

  grpc::ClientContext one;
  v1::GetModelRequest request;
  request.set_name("wordy");
  v1::GetModelResponse model;
  ASSERT_TRUE(model_stub_->GetModel(&one, request, &model).ok());
  EXPECT_EQ(model.model().layers_size(), 1);
}

// What the client gets wrong, and the field that the answer must name.
TEST_F(ServiceTest, AnswersBadRequestsWithTheRightCode) {
  struct Case {
    const char* what;
    void (*spoil)(v1::GenerateRequest&);
    grpc::StatusCode code;
    const char* text;
  };
  const std::vector<Case> cases = {
      {"unknown model", [](auto& r) { r.set_model("nobody"); },
       grpc::StatusCode::NOT_FOUND, "'nobody'"},
      {"no model", [](auto& r) { r.clear_model(); },
       grpc::StatusCode::INVALID_ARGUMENT, "model: "},
      {"empty prompt", [](auto& r) { r.set_text(""); },
       grpc::StatusCode::INVALID_ARGUMENT, "text: "},
      {"prompt over the context",
       [](auto& r) { r.mutable_tokens()->mutable_ids()->Resize(33, 1); },
       grpc::StatusCode::INVALID_ARGUMENT, "tokens.ids: 33 tokens"},
      {"NaN temperature",
       [](auto& r) {
         r.mutable_sampling()->set_temperature(
             std::numeric_limits<float>::quiet_NaN());
       },
       grpc::StatusCode::INVALID_ARGUMENT, "sampling.temperature: nan"},
      {"negative temperature",
       [](auto& r) { r.mutable_sampling()->set_temperature(-1); },
       grpc::StatusCode::INVALID_ARGUMENT, "sampling.temperature: -1"},
      {"prompt id outside the vocabulary",
       [](auto& r) { r.mutable_tokens()->add_ids(1 << 20); },
       grpc::StatusCode::INVALID_ARGUMENT, "tokens.ids[0]: 1048576"},
      {"stop id outside the vocabulary",
       [](auto& r) { r.add_stop_token_ids(-1); },
       grpc::StatusCode::INVALID_ARGUMENT, "stop_token_ids[0]: -1"},
      {"3 MB prompt", [](auto& r) { r.set_text(std::string(3 << 20, 'x')); },
       grpc::StatusCode::INVALID_ARGUMENT, "text: 3145728 bytes"},
      {"10 MB message", [](auto& r) { r.set_text(std::string(10 << 20, 'x')); },
       grpc::StatusCode::RESOURCE_EXHAUSTED, "4194304"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.what);
    v1::GenerateRequest request = Prompt();
    bad.spoil(request);
    const grpc::Status status = Generate(request);
    EXPECT_EQ(status.error_code(), bad.code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(bad.text));
    ExpectServes();
  }
  EXPECT_EQ(engine_->num_submitted(), cases.size());
}

TEST_F(ServiceTest, RefusesCompressedMessages) {
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(&context, Prompt(), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServiceTest, SaysWhenToComeBackWhenTheQueueIsFull) {
  engine_->Refuse(absl::ResourceExhaustedError("the queue is full"));
  grpc::ClientContext context;
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(&context, Prompt(), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // 500 tokens at 250 a second, +-20 %.
  const auto retry = DetailIn<google::rpc::RetryInfo>(status);
  const double delay = static_cast<double>(retry.retry_delay().seconds()) +
                       retry.retry_delay().nanos() / 1e9;
  EXPECT_GE(delay, 1.6);
  EXPECT_LE(delay, 2.4);
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(status).reason(), "QUEUE_FULL");
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"),
            1u);
  engine_->Refuse(absl::OkStatus());
  ExpectServes();
}

TEST_F(ServiceTest, NamesTheFieldOfWhatCanNeverFit) {
  engine_->Refuse(absl::InvalidArgumentError(
      "max_tokens: needs 9 KV blocks, and the whole pool has 4"));
  const grpc::Status status = Generate(Prompt());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(
      DetailIn<google::rpc::BadRequest>(status).field_violations(0).field(),
      "max_tokens");
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(status).reason(), "KV_EXHAUSTED");
}

}  // namespace
}  // namespace headcount
