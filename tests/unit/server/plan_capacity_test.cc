// PlanCapacity of models/mailroom: dense, pruned, and a variant.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "headcount/v1/model.grpc.pb.h"
#include "heads/kv_geometry.h"
#include "server/config.h"
#include "server/server.h"
#include "tests/unit/mailroom.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

class PlanCapacityTest : public ::testing::Test {
 protected:
  PlanCapacityTest() {
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
    half->set_name("half");
    half->mutable_heads()->set_mask_file(
        absl::StrCat(kMailroom, "/heads_half.json"));
    config::v1::ModelSpec* variant = config.add_models();
    variant->set_name("variant");
    variant->mutable_source()->set_variant_of("mailroom");
    variant->mutable_heads()->set_mask_file(half->heads().mask_file());
    variant->mutable_limits()->set_max_concurrent(3);
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(config);
    CHECK(server.ok()) << server.status();
    server_ = *std::move(server);
    const absl::Status started = server_->Start();
    CHECK(started.ok()) << started;
    stub_ = v1::ModelService::NewStub(grpc::CreateChannel(
        server_->grpc_address(), grpc::InsecureChannelCredentials()));
  }

  grpc::Status Ask(const v1::PlanCapacityRequest& request,
                   v1::PlanCapacityResponse* response) {
    grpc::ClientContext context;
    return stub_->PlanCapacity(&context, request, response);
  }
  v1::PlanCapacityResponse Plan(const v1::PlanCapacityRequest& request) {
    v1::PlanCapacityResponse response;
    const grpc::Status status = Ask(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::Model Describe(const std::string& name) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_name(name);
    v1::GetModelResponse response;
    EXPECT_TRUE(stub_->GetModel(&context, request, &response).ok());
    return response.model();
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::ModelService::Stub> stub_;
};

TEST_F(PlanCapacityTest, IsWhatTheServerSaysOfItsModels) {
  for (const char* name : {"mailroom", "half", "variant"}) {
    SCOPED_TRACE(name);
    const v1::Model model = Describe(name);
    v1::PlanCapacityRequest request;
    request.set_name(name);
    const v1::PlanCapacityResponse response = Plan(request);
    const v1::CapacityPlan& plan = response.plan();
    EXPECT_EQ(plan.query_heads(), model.query_heads());
    EXPECT_EQ(plan.kv_heads(), model.kv_heads());
    EXPECT_EQ(plan.kv_dtype(), model.kv_dtype());
    EXPECT_EQ(plan.kv_bytes_per_token(), model.kv_bytes_per_token());
    ASSERT_EQ(plan.groups_size(), 1);
    EXPECT_EQ(plan.groups(0).block_bytes(), model.kv_block_bytes());
    EXPECT_EQ(plan.context_tokens(), model.max_context());
    EXPECT_EQ(plan.kv_pool_bytes(), 64 << 20);
    EXPECT_EQ(plan.slab_bytes(), SlabBytes(64 << 20));
    EXPECT_EQ(response.all_heads().kv_bytes_per_token(),
              model.kv_bytes_per_token_unpruned());
    EXPECT_EQ(response.all_heads().kv_heads(), model.kv_heads_unpruned());
  }
}

TEST_F(PlanCapacityTest, WeightsAreThoseThatAreLoaded) {
  v1::PlanCapacityRequest request;
  request.set_name("mailroom");
  EXPECT_EQ(Plan(request).plan().weight_bytes(),
            Describe("mailroom").weight_bytes());
  request.set_name("half");
  EXPECT_EQ(Plan(request).plan().weight_bytes(),
            Describe("half").weight_bytes());
  // A variant runs over those of its base.
  request.set_name("variant");
  const v1::CapacityPlan variant = Plan(request).plan();
  EXPECT_EQ(variant.weight_bytes(), Describe("mailroom").weight_bytes());
  EXPECT_EQ(variant.sequences_scheduled(), 3);
}

TEST_F(PlanCapacityTest, AnswersWhatIfs) {
  v1::PlanCapacityRequest request;
  request.set_name("mailroom");
  request.set_kv_dtype("int8");
  request.set_context_tokens(1000);
  request.set_kv_pool_bytes(int64_t{1} << 30);
  // The first KV group of layer 0 of three query heads, and one head more.
  for (const int head : {0, 1, 2, 5}) {
    (*request.mutable_pruned())[0].add_query_heads(head);
  }
  const v1::PlanCapacityResponse response = Plan(request);
  const v1::CapacityPlan& plan = response.plan();
  EXPECT_EQ(plan.query_heads(), 72 - 4);
  EXPECT_EQ(plan.kv_heads(), 23);
  EXPECT_EQ(plan.kv_dtype(), "int8");
  EXPECT_EQ(plan.kv_bytes_per_token(), 23 * (32 + 32 + 2 + 2));
  EXPECT_EQ(plan.kv_pool_bytes(), int64_t{1} << 30);
  EXPECT_EQ(plan.groups(0).sequence_blocks(), 63);
  EXPECT_LT(plan.weight_bytes(), response.all_heads().weight_bytes());
  EXPECT_GT(plan.sequences_admitted(),
            response.all_heads().sequences_admitted());
  // Nothing has changed.
  EXPECT_EQ(Describe("mailroom").kv_heads(), 24);
}

TEST_F(PlanCapacityTest, NamesTheFieldThatIsWrong) {
  const auto error = [&](auto set) {
    v1::PlanCapacityRequest request;
    request.set_name("mailroom");
    set(request);
    v1::PlanCapacityResponse response;
    const grpc::Status status = Ask(request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  using Request = v1::PlanCapacityRequest;
  EXPECT_THAT(error([](Request& r) { r.set_context_tokens(8193); }),
              HasSubstr("context_tokens: 8193"));
  EXPECT_THAT(error([](Request& r) { r.set_context_tokens(-1); }),
              HasSubstr("context_tokens: -1"));
  EXPECT_THAT(error([](Request& r) { r.set_kv_pool_bytes(INT64_MAX); }),
              HasSubstr("kv_pool_bytes"));
  EXPECT_THAT(error([](Request& r) { r.set_kv_dtype("int3"); }),
              HasSubstr("kv_dtype"));
  EXPECT_THAT(
      error([](Request& r) { (*r.mutable_pruned())[6].add_query_heads(0); }),
      HasSubstr("layer 6 does not exist"));
  EXPECT_THAT(
      error([](Request& r) { (*r.mutable_pruned())[0].add_query_heads(-1); }),
      HasSubstr("layer 0, head -1 does not exist"));
  v1::PlanCapacityRequest unknown;
  unknown.set_name("nobody");
  v1::PlanCapacityResponse response;
  EXPECT_EQ(Ask(unknown, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace headcount
