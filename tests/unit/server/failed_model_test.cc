// A model that did not load, beside two that did.
#include "server/failed_model.h"

#include <string>
#include <utility>
#include <vector>

#include "server/model_table.h"
#include "service_fixture.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string ErrorOf(const std::string& path, const std::string& message,
                    const std::string& mask_file = "") {
  config::v1::ModelSpec spec;
  spec.set_name("bad");
  spec.mutable_source()->set_path(path);
  spec.mutable_heads()->set_mask_file(mask_file);
  const FailedModel model =
      FailedModel::Of(spec, absl::InvalidArgumentError(message));
  EXPECT_EQ(model.name, "bad");
  EXPECT_EQ(model.status,
            absl::InvalidArgumentError("model 'bad': " + message));
  return model.error;
}

TEST(FailedModelTest, ClientsReadNamesOfFilesAndNoPaths) {
  EXPECT_EQ(ErrorOf("/srv/m.gguf", "/srv/m.gguf: tensor 't': overlaps"),
            "m.gguf: tensor 't': overlaps");
  EXPECT_EQ(ErrorOf("/srv/m", "/srv/m/config.json: head_dim"),
            "m/config.json: head_dim");
  EXPECT_EQ(ErrorOf("/srv/m//", "/srv/m///config.json: head_dim"),
            "m///config.json: head_dim");
  EXPECT_EQ(ErrorOf("../srv/m", "cannot open ../srv/m/config.json"),
            "cannot open m/config.json");
  EXPECT_EQ(ErrorOf("m", "m/config.json: head_dim"), "m/config.json: head_dim");
  EXPECT_EQ(ErrorOf("/srv/m", "/srv/m/h.json: those of /srv/m are others",
                    "/srv/m/h.json"),
            "h.json: those of m are others");
  EXPECT_EQ(ErrorOf("/srv/m", "layer 3: q and/or k"), "layer 3: q and/or k");
}

TEST(FailedModelTest, APathThatIsNotConfiguredIsLeftToTheLog) {
  for (const char* message :
       {"/mnt/disk/m/x: no", "link to /mnt/disk/m", "'/mnt'", "a ../../mnt"}) {
    EXPECT_EQ(ErrorOf("/srv/m", message), "see the server's log") << message;
  }
  EXPECT_EQ(ErrorOf("/", "/config.json: no"), "see the server's log");
}

TEST(FailedModelTest, ErrorsAreTextThatAMessageCanHold) {
  EXPECT_EQ(ErrorOf("/srv/\xff.gguf", "/srv/\xff.gguf: no"),
            "\xEF\xBF\xBD.gguf: no");
}

class FailedModelServiceTest : public ServiceTest {
 protected:
  FailedModelServiceTest()
      : ServiceTest(LocalConfig(),
                    {{.name = "bad",
                      .status = absl::InvalidArgumentError(
                          "model 'bad': /srv/bad.gguf: tensor 't': overlaps"),
                      .error = "bad.gguf: tensor 't': overlaps"}}) {}
};

TEST_F(FailedModelServiceTest, IsListedByNameWithItsError) {
  grpc::ClientContext context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(model_stub_->ListModels(&context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 3);
  const v1::Model& bad = list.models(0);
  EXPECT_EQ(bad.name(), "bad");
  EXPECT_EQ(bad.state(), v1::Model::STATE_FAILED);
  EXPECT_EQ(bad.error(), "bad.gguf: tensor 't': overlaps");
  EXPECT_EQ(list.models(1).name(), "mail");
  EXPECT_EQ(list.models(1).state(), v1::Model::STATE_READY);
  EXPECT_EQ(list.models(1).error(), "");

  grpc::ClientContext one;
  v1::GetModelRequest request;
  request.set_name("bad");
  v1::GetModelResponse response;
  ASSERT_TRUE(model_stub_->GetModel(&one, request, &response).ok());
  EXPECT_EQ(response.model().SerializeAsString(), bad.SerializeAsString());
}

TEST_F(FailedModelServiceTest, RefusesToRunItAndServesTheOthers) {
  v1::GenerateRequest request = Prompt();
  request.set_model("bad");
  const grpc::Status status = Generate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(),
            "model 'bad' did not load: bad.gguf: tensor 't': overlaps");
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(status).reason(), "MODEL_FAILED");
  EXPECT_EQ(DetailIn<google::rpc::ResourceInfo>(status).resource_name(), "bad");
  EXPECT_THAT(status.error_details(), Not(HasSubstr("/srv")));
  EXPECT_EQ(engine_->num_submitted(), 0u);
  ExpectServes();

  request.clear_model();
  EXPECT_THAT(Generate(request).error_message(), HasSubstr("3 models"));
}

TEST_F(FailedModelServiceTest, ItsHealthIsNotThatOfTheServer) {
  for (const char* name : {"", "readiness", "liveness", "model/mail"}) {
    EXPECT_EQ(Health(name), HealthCheckResponse::SERVING) << name;
  }
  EXPECT_EQ(Health("model/bad"), HealthCheckResponse::NOT_SERVING);
  EXPECT_THAT(
      Metrics(),
      HasSubstr("\nheadcount_model_state{model=\"bad\",state=\"failed\"} 1\n"));
}

// A request without a name must not change its model when one fails to load.
TEST(ModelTableTest, AnEmptyNameMeansTheOnlyConfiguredModel) {
  std::vector<ServedModel> served;
  served.push_back(MakeServedModel("mail", 0));
  const ModelTable alone(served);
  ASSERT_TRUE(alone.Find("").ok());
  EXPECT_EQ((*alone.Find(""))->name, "mail");
  const ModelTable beside(
      std::move(served),
      {{.name = "bad", .status = absl::InternalError("x"), .error = "x"}});
  EXPECT_TRUE(absl::IsInvalidArgument(beside.Find("").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(beside.Find("bad").status()));
  EXPECT_TRUE(absl::IsNotFound(beside.Find("nobody").status()));
  EXPECT_EQ(beside.FindEntry("bad")->state, ModelState::kFailed);
  EXPECT_EQ(beside.FindEntry("mail")->state, ModelState::kReady);
  EXPECT_FALSE(beside.FindEntry("").has_value());
}

}  // namespace
}  // namespace headcount
