// The whole server with models/mailroom, dense and pruned side by side.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.grpc.pb.h"
#include "server/config.h"
#include "server/server.h"
#include "temporary_folder.h"
#include "tests/unit/mailroom.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

config::v1::ServerConfig MailroomConfig() {
  config::v1::ServerConfig config = DefaultServerConfig();
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen("127.0.0.1:0");
  config.set_kv_pool("64MiB");
  config.mutable_drain()->set_grace("0s");
  const absl::StatusOr<config::v1::ModelSpec> spec = ReadModelSpec(kMailroom);
  CHECK(spec.ok()) << spec.status();
  *config.add_models() = *spec;
  config::v1::ModelSpec* half = config.add_models();
  *half = *spec;
  half->set_name("mailroom-half");
  half->mutable_heads()->set_mask_file(
      absl::StrCat(kMailroom, "/heads_half.json"));
  config::v1::ModelSpec* int8 = config.add_models();
  *int8 = *spec;
  int8->set_name("mailroom-int8");
  int8->mutable_kv_cache()->set_dtype("int8");
  config::v1::KvHeads* heads = int8->mutable_kv_cache()->add_heads();
  heads->set_layer(0);
  heads->add_kv_heads("1-2");
  heads->set_dtype("f16");
  return config;
}

class MailroomTest : public ::testing::Test {
 protected:
  MailroomTest() {
    absl::StatusOr<std::unique_ptr<Server>> server =
        Server::Create(MailroomConfig());
    CHECK(server.ok()) << server.status();
    server_ = *std::move(server);
    const absl::Status started = server_->Start();
    CHECK(started.ok()) << started;
    const auto channel = grpc::CreateChannel(
        server_->grpc_address(), grpc::InsecureChannelCredentials());
    inference_ = v1::InferenceService::NewStub(channel);
    models_ = v1::ModelService::NewStub(channel);
  }

  std::vector<int32_t> Generate(const std::string& text, int max_tokens) {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    request.set_model("mailroom");
    request.set_text(text);
    request.set_max_tokens(max_tokens);
    request.set_ignore_eos(true);
    const auto reader = inference_->Generate(&context, request);
    std::vector<int32_t> ids;
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
      for (const auto& token : response.tokens())
        ids.push_back(token.token_id());
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.usage().generated_tokens(), max_tokens);
    return ids;
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::ModelService::Stub> models_;
};

TEST_F(MailroomTest, TellsSpamFromHam) {
  for (const char* model : {"mailroom", "mailroom-half", "mailroom-int8"}) {
    grpc::ClientContext context;
    v1::ClassifyRequest request;
    request.set_model(model);
    request.add_inputs(
        "CONGRATULATIONS! You have been selected to receive a FREE vacation. "
        "Click here now to claim your prize. 100% free, no obligation!!!");
    request.add_inputs(
        "On Tue, Aug 20, Tom wrote:\n> the patch breaks the build on my "
        "machine\nI get the same error with gcc 3.2, will look at it tonight.");
    v1::ClassifyResponse response;
    const grpc::Status status =
        inference_->Classify(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.results(0).label(), "spam") << model;
    EXPECT_EQ(response.results(1).label(), "ham") << model;
  }
}

TEST_F(MailroomTest, StreamsTheSameAloneAndInCompany) {
  const std::vector<std::string> prompts = {"Dear friend,", "On Tue, Aug 20",
                                            "Please find attached the", "$$$"};
  std::vector<std::vector<int32_t>> alone;
  for (const std::string& prompt : prompts) {
    alone.push_back(Generate(prompt, 24));
    EXPECT_EQ(alone.back().size(), 24u);
  }
  std::vector<std::thread> clients;
  for (size_t i = 0; i < 16; ++i) {
    clients.emplace_back([this, &prompts, &alone, i] {
      EXPECT_EQ(Generate(prompts[i % 4], 24), alone[i % 4]);
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(MailroomTest, ScoresAsItClassifies) {
  // The label's token after the template is a continuation like any other.
  grpc::ClientContext context;
  v1::ClassifyRequest classify;
  classify.set_model("mailroom");
  classify.add_inputs("cheap pills");
  v1::ClassifyResponse classified;
  ASSERT_TRUE(inference_->Classify(&context, classify, &classified).ok());
  grpc::ClientContext tokenize_context;
  v1::TokenizeRequest tokenize;
  tokenize.set_model("mailroom");
  tokenize.set_text("cheap pills");
  v1::TokenizeResponse ids;
  ASSERT_TRUE(inference_->Tokenize(&tokenize_context, tokenize, &ids).ok());

  for (const v1::LabelProbability& label : classified.results(0).labels()) {
    v1::ScoreRequest score;
    score.set_model("mailroom");
    score.mutable_prompt_tokens()->add_ids(0);  // <|bos|>
    score.mutable_prompt_tokens()->mutable_ids()->MergeFrom(ids.ids());
    score.mutable_prompt_tokens()->add_ids(2);  // <|label|>
    score.set_continuation_text(label.label());
    grpc::ClientContext score_context;
    v1::ScoreResponse scored;
    const grpc::Status status =
        inference_->Score(&score_context, score, &scored);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_NEAR(scored.total_logprob(), label.logprob(), 1e-4);
  }
}

TEST_F(MailroomTest, ScoresCandidatesAsOneByOne) {
  v1::ScoreRequest request;
  request.set_model("mailroom");
  request.set_prompt_text("Dear all, the meeting moves to");
  const std::vector<std::string> texts = {" Thursday", " Wednesday evening",
                                          " the office next door", " x"};
  for (const std::string& text : texts)
    request.add_candidates()->set_text(text);
  grpc::ClientContext context;
  v1::ScoreResponse together;
  grpc::Status status = inference_->Score(&context, request, &together);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(together.candidates_size(), 4);
  request.clear_candidates();
  for (size_t i = 0; i < texts.size(); ++i) {
    request.set_continuation_text(texts[i]);
    grpc::ClientContext one;
    v1::ScoreResponse alone;
    status = inference_->Score(&one, request, &alone);
    ASSERT_TRUE(status.ok()) << status.error_message();
    const v1::ScoredCandidate& candidate =
        together.candidates(static_cast<int>(i));
    ASSERT_EQ(candidate.tokens_size(), alone.tokens_size());
    for (int k = 0; k < alone.tokens_size(); ++k) {
      EXPECT_EQ(candidate.tokens(k).token_id(), alone.tokens(k).token_id());
      EXPECT_EQ(candidate.tokens(k).logprob(), alone.tokens(k).logprob());
    }
    EXPECT_EQ(candidate.perplexity(), alone.perplexity());
  }
}

TEST_F(MailroomTest, GatesOfZeroScoreLikeThePrunedModel) {
  v1::GetModelRequest which;
  which.set_name("mailroom-half");
  v1::GetModelResponse half;
  grpc::ClientContext model_context;
  ASSERT_TRUE(models_->GetModel(&model_context, which, &half).ok());
  v1::ScoreRequest request;
  request.set_continuation_text(
      "Dear all, the meeting about the new release moves to Thursday.");
  std::vector<v1::ScoreResponse> responses(3);
  for (size_t i = 0; i < 3; ++i) {
    // Dense, pruned, gated.
    request.set_model(i == 1 ? "mailroom-half" : "mailroom");
    if (i == 2) {
      for (const v1::LayerHeads& layer : half.model().layers()) {
        v1::LayerGates* gates = request.mutable_head_gates()->add_layers();
        gates->mutable_query_heads()->Resize(layer.query_heads_unpruned(), 0);
        for (const int head : layer.query_heads()) {
          gates->set_query_heads(head, 1);
        }
      }
    }
    grpc::ClientContext context;
    const grpc::Status status =
        inference_->Score(&context, request, &responses[i]);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_NEAR(responses[2].mean_nll(), responses[1].mean_nll(), 1e-3);
  EXPECT_GT(std::fabs(responses[0].mean_nll() - responses[1].mean_nll()), 0.01);
}

TEST_F(MailroomTest, AnswersWithOneOfTheChoices) {
  const std::vector<std::string> choices = {" Thursday", " Thursday at ten",
                                            " next week", "!"};
  for (uint64_t seed = 0; seed < 40; ++seed) {
    v1::GenerateRequest request;
    request.set_model("mailroom");
    request.set_text("Dear all, the meeting moves to");
    request.mutable_sampling()->set_temperature(3);
    request.mutable_sampling()->set_seed(seed);
    request.mutable_choices()->Assign(choices.begin(), choices.end());
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, request);
    std::string text;
    v1::GenerateResponse response;
    while (reader->Read(&response)) text += response.text();
    const grpc::Status status = reader->Finish();
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_TRUE(response.has_choice());
    EXPECT_EQ(text, choices[static_cast<size_t>(response.choice())]);
    EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP);
  }
}

TEST_F(MailroomTest, ShowsWhatEachHeadCosts) {
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_name("mailroom-half");
  v1::GetModelResponse response;
  ASSERT_TRUE(models_->GetModel(&context, request, &response).ok());
  const v1::Model& model = response.model();
  EXPECT_EQ(model.kv_bytes_per_token(), 1536);
  EXPECT_EQ(model.kv_bytes_per_token_unpruned(), 3072);
  EXPECT_EQ(model.kv_heads(), 12);
  EXPECT_EQ(model.kv_heads_unpruned(), 24);
  EXPECT_EQ(model.query_heads_unpruned(), 72);
  ASSERT_EQ(model.layers_size(), 6);
  EXPECT_EQ(model.layers(2).kv_heads_size(), 0);
  ASSERT_EQ(model.layers(1).kv_heads_size(), 1);
  EXPECT_EQ(model.layers(1).kv_heads(0).index(), 3);
  EXPECT_EQ(model.layers(1).kv_heads(0).query_heads(0), 9);
  EXPECT_GT(model.weight_bytes_pruned(), 0);
}

TEST_F(MailroomTest, ShowsHowEachKvHeadIsStored) {
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_name("mailroom-int8");
  v1::GetModelResponse response;
  ASSERT_TRUE(models_->GetModel(&context, request, &response).ok());
  const v1::Model& model = response.model();
  EXPECT_EQ(model.kv_dtype(), "int8");
  // 22 heads with 32 + 2 bytes for K and for V, 2 with 64.
  EXPECT_EQ(model.kv_bytes_per_token(), 22 * 2 * 34 + 2 * 2 * 64);
  EXPECT_EQ(model.kv_bytes_per_token_unpruned(), model.kv_bytes_per_token());
  ASSERT_EQ(model.layers(0).kv_heads_size(), 4);
  EXPECT_EQ(model.layers(0).kv_heads(0).dtype(), "int8");
  EXPECT_EQ(model.layers(0).kv_heads(0).bytes_per_token(), 68);
  EXPECT_EQ(model.layers(0).kv_heads(2).dtype(), "f16");
  EXPECT_EQ(model.layers(0).kv_heads(2).bytes_per_token(), 128);
  EXPECT_EQ(model.layers(1).kv_heads(1).dtype(), "int8");
}

TEST_F(MailroomTest, GivesAllMemoryBackAfterCancels) {
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    request.set_model("mailroom");
    request.set_text("Dear friend,");
    request.set_ignore_eos(true);
    const auto reader = inference_->Generate(&context, request);
    v1::GenerateResponse response;
    for (int read = 0; read < i % 5; ++read) reader->Read(&response);
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  // A client does not wait for the server to notice, so ask until it has.
  v1::GetModelRequest request;
  request.set_name("mailroom");
  v1::GetModelResponse response;
  do {
    grpc::ClientContext context;
    ASSERT_TRUE(models_->GetModel(&context, request, &response).ok());
  } while (response.model().requests_running() > 0 ||
           response.model().requests_waiting() > 0);
  EXPECT_EQ(response.model().kv_bytes_used(), 0);
  EXPECT_EQ(Generate("x", 1).size(), 1u);
}

struct BadModel {
  std::string yaml;
  std::string error;
};

TEST(MailroomSetup, RefusesWhatDoesNotFitTheModel) {
  const std::string source =
      absl::StrCat("name: m\nsource: {path: ", kMailroom, "}\n");
  const std::vector<BadModel> cases = {
      {"heads: {pruned: {6: [0]}}", "6"},
      {"heads: {pruned: {0: [12]}}", "12"},
      {"heads: {mask_file: mask.json}", "sha256"},
      {"limits: {max_context: 8193}", "limits.max_context: 8193 is over"},
      {"classify: {template: none, labels: [a, b]}", "classify.template"},
  };
  for (const BadModel& bad : cases) {
    SCOPED_TRACE(bad.yaml);
    const TemporaryFolder folder;
    folder.Write("mask.json",
                 R"({"format": "heads/1", "weights": "full",
                     "base": {"arch": "llama", "sha256":
                     "00000000000000000000000000000000)"
                 R"(00000000000000000000000000000000",
                     "layers": 6, "q_heads": 12, "kv_heads": 4,
                     "head_dim": 32},
                     "layers": [{"i": 0, "drop_q": [0], "drop_kv": []}]})");
    const absl::StatusOr<config::v1::ModelSpec> spec = ReadModelSpec(
        folder.Write("m.yaml", absl::StrCat(source, bad.yaml, "\n")));
    ASSERT_TRUE(spec.ok()) << spec.status();
    config::v1::ServerConfig config = DefaultServerConfig();
    *config.add_models() = *spec;
    const absl::Status status = Server::Create(config).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("model 'm': "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.error));
  }
}

TEST(MailroomSetup, RefusesAPoolThatIsTooSmall) {
  config::v1::ServerConfig config = MailroomConfig();
  config.set_kv_pool("64KiB");
  const absl::Status status = Server::Create(config).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

}  // namespace
}  // namespace headcount
