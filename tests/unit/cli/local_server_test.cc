// A server inside the process, and the candidate beside its model.
#include "cli/local_server.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include "absl/status/status.h"
#include "cli/candidate_model.h"
#include "cli/local_weights.h"
#include "cli/repair_file.h"
#include "cli/served_answers.h"
#include "format/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "prune/repair_search.h"
#include "server/config.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kMailroomFolder[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

// mailroom without all heads of layer 5.
Json MaskOfLayerFive() {
  return Json::parse(R"({
    "format": "heads/1",
    "base": {"arch": "llama", "layers": 6, "q_heads": 12, "kv_heads": 4,
             "head_dim": 32},
    "layers": [{"i": 5, "drop_attention": true}]
  })");
}

TEST(LocalServer, ServesWhileItLivesAndLogsNoRequest) {
  const absl::StatusOr<config::v1::ModelSpec> spec =
      ReadModelSpec(kMailroomFolder);
  ASSERT_TRUE(spec.ok()) << spec.status();
  testing::internal::CaptureStderr();
  std::string address;
  OpenCalls calls;
  {
    const auto server = LocalServer::Start({*spec});
    ASSERT_TRUE(server.ok()) << server.status();
    address = (*server)->address();
    EXPECT_THAT(address, HasSubstr("127.0.0.1:"));
    const Client client({.address = address});
    const absl::StatusOr<v1::Model> model = DescribeModel(client, &calls, "");
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->name(), "mailroom");
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
  const Client client({.address = address, .timeout = absl::Seconds(5)});
  EXPECT_TRUE(absl::IsUnavailable(DescribeModel(client, &calls, "").status()));
}

TEST(LocalServer, SaysWhyItsModelDoesNotLoad) {
  config::v1::ModelSpec spec = ReadModelSpec(kMailroomFolder).value();
  spec.mutable_heads()->set_mask_file("/nowhere/heads.json");
  testing::internal::CaptureStderr();
  const auto server = LocalServer::Start({spec});
  testing::internal::GetCapturedStderr();
  EXPECT_THAT(std::string(server.status().message()),
              HasSubstr("/nowhere/heads.json"));
}

// What it says of latency is of masks, not of what was asked before.
TEST(LocalServer, ComputesATextEachTime) {
  const config::v1::ModelSpec spec = ReadModelSpec(kMailroomFolder).value();
  const auto server = LocalServer::Start({spec});
  ASSERT_TRUE(server.ok()) << server.status();
  const Client client({.address = (*server)->address()});
  const auto stub = v1::InferenceService::NewStub(client.channel());
  for (int round = 0; round < 2; ++round) {
    v1::GenerateRequest request;
    request.set_max_tokens(1);
    for (int i = 0; i < 64; ++i) request.mutable_tokens()->add_ids(5 + i);
    grpc::ClientContext context;
    const auto stream = stub->Generate(&context, request);
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
      EXPECT_EQ(response.usage().cached_tokens(), 0) << round;
    }
    EXPECT_TRUE(stream->Finish().ok());
  }
}

TEST(CandidateModel, IsWhatItsFilesSayEachTime) {
  const config::v1::ModelSpec spec = ReadModelSpec(kMailroomFolder).value();
  auto candidate = CandidateModel::Create(spec);
  ASSERT_TRUE(candidate.ok()) << candidate.status();
  const std::string folder =
      std::filesystem::path((*candidate)->spec().heads().mask_file())
          .parent_path();
  const std::string name = (*candidate)->spec().name();
  {
    const auto server = LocalServer::Start({spec, (*candidate)->spec()});
    ASSERT_TRUE(server.ok()) << server.status();
    const Client client({.address = (*server)->address()});
    OpenCalls calls;
    const auto weight_bytes = [&](const std::vector<LayerRepair>& repair) {
      const absl::Status status =
          (*candidate)->Serve(MaskOfLayerFive(), repair, client, &calls);
      EXPECT_TRUE(status.ok()) << status;
      const auto model = DescribeModel(client, &calls, name);
      EXPECT_TRUE(model.ok()) << model.status();
      EXPECT_EQ(model->query_heads(), 60);
      return model->weight_bytes();
    };
    const int64_t alone = weight_bytes({});
    // The bias of a layer without heads.
    const int64_t repaired =
        weight_bytes({{.layer = 5,
                       .projection = {.hidden = 192,
                                      .bias = std::vector<float>(192, 0.5f)}}});
    EXPECT_GE(repaired, alone + 192 * 4);
    EXPECT_EQ(weight_bytes({}), alone);
    EXPECT_TRUE(std::filesystem::exists(folder));
  }
  *candidate = nullptr;
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST(WriteRepair, IsWhatTheFormatSays) {
  const std::string path = testing::TempDir() + "/repair.safetensors";
  ASSERT_TRUE(
      WriteRepair(path,
                  {{.layer = 0,
                    .projection = {.hidden = 2,
                                   .weight = {1, 2, 3, 4, 5, 6},
                                   .bias = {7, 8}}},
                   {.layer = 10, .projection = {.hidden = 2, .bias = {9, 10}}}})
          .ok());
  const absl::StatusOr<Checkpoint> file = Checkpoint::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto floats = [&file](const std::string& name) {
    const TensorView* tensor = file->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    std::vector<float> values(tensor->data.size() / sizeof(float));
    std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
    return values;
  };
  EXPECT_THAT(floats("layers.0.o_proj.weight"), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(file->Find("layers.0.o_proj.weight")->shape, ElementsAre(2, 3));
  EXPECT_THAT(floats("layers.0.o_proj.bias"), ElementsAre(7, 8));
  EXPECT_THAT(floats("layers.10.o_proj.bias"), ElementsAre(9, 10));
  EXPECT_EQ(file->Find("layers.10.o_proj.weight"), nullptr);
}

TEST(CandidateModel, HasAnotherNameThanItsModel) {
  config::v1::ModelSpec spec = ReadModelSpec(kMailroomFolder).value();
  spec.set_name("candidate");
  spec.mutable_kv_cache()->mutable_quota()->set_min("512MiB");
  const auto candidate = CandidateModel::Create(spec);
  ASSERT_TRUE(candidate.ok()) << candidate.status();
  EXPECT_NE((*candidate)->spec().name(), "candidate");
  EXPECT_FALSE((*candidate)->spec().kv_cache().has_quota());
}

TEST(ReadOutputProjection, HasTheColumnsOfTheHeads) {
  const absl::StatusOr<LocalWeights> weights =
      ReadLocalWeights(kMailroomFolder);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto projection = ReadOutputProjection(*weights, 3, {2, 7});
  ASSERT_TRUE(projection.ok()) << projection.status();
  EXPECT_EQ(projection->hidden, 192);
  EXPECT_THAT(projection->bias, IsEmpty());
  ASSERT_EQ(projection->weight.size(), 192u * 64u);
  const TensorView* tensor =
      weights->checkpoint.Find("model.layers.3.self_attn.o_proj.weight");
  ASSERT_NE(tensor, nullptr);
  ASSERT_EQ(tensor->dtype, ElementType::kF16);
  // By hand: row 191 of 384 columns, the last one of head 7.
  uint16_t half = 0;
  std::memcpy(&half, tensor->data.data() + 2 * (191 * 384 + 7 * 32 + 31), 2);
  const int exponent = half >> 10 & 31;
  const double magnitude =
      exponent == 0 ? std::ldexp(half & 1023, -24)
                    : std::ldexp(1024 + (half & 1023), exponent - 25);
  EXPECT_EQ(projection->weight.back(), half >> 15 ? -magnitude : magnitude);
}

}  // namespace
}  // namespace headcount
