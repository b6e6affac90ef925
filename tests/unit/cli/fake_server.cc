#include "fake_server.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace headcount {
namespace {

void AddLabel(v1::Classification* result, const std::string& label,
              float probability) {
  v1::LabelProbability* entry = result->add_labels();
  entry->set_label(label);
  entry->set_probability(probability);
}

}  // namespace

FakeServer::FakeServer() {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(static_cast<v1::InferenceService::Service*>(this));
  builder.RegisterService(static_cast<v1::ModelService::Service*>(this));
  builder.RegisterService(
      static_cast<grpc::health::v1::Health::Service*>(this));
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr && port != 0);
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() { server_->Shutdown(); }

v1::GenerateRequest FakeServer::last_generate() {
  MutexLock lock(&mutex_);
  return last_generate_;
}

std::vector<v1::ClassifyRequest> FakeServer::classify_requests() {
  MutexLock lock(&mutex_);
  return classify_requests_;
}

grpc::Status FakeServer::Generate(
    grpc::ServerContext*, const v1::GenerateRequest* request,
    grpc::ServerWriter<v1::GenerateResponse>* writer) {
  {
    MutexLock lock(&mutex_);
    last_generate_ = *request;
  }
  for (const v1::GenerateResponse& response : responses) {
    writer->Write(response);
  }
  if (on_endless_generate) {
    on_endless_generate();
    v1::GenerateResponse more;
    more.set_text("more ");
    while (writer->Write(more)) {
    }
  }
  return status;
}

grpc::Status FakeServer::Classify(grpc::ServerContext*,
                                  const v1::ClassifyRequest* request,
                                  v1::ClassifyResponse* response) {
  {
    MutexLock lock(&mutex_);
    classify_requests_.push_back(*request);
  }
  for (const std::string& input : request->inputs()) {
    const bool spam = input.find("win") != std::string::npos;
    v1::Classification* result = response->add_results();
    result->set_label(spam ? "spam" : "ham");
    AddLabel(result, spam ? "spam" : "ham", 0.75f);
    AddLabel(result, spam ? "ham" : "spam", 0.25f);
  }
  return status;
}

grpc::Status FakeServer::ListModels(grpc::ServerContext*,
                                    const v1::ListModelsRequest*,
                                    v1::ListModelsResponse* response) {
  *response->add_models() = model;
  return status;
}

grpc::Status FakeServer::GetModel(grpc::ServerContext*,
                                  const v1::GetModelRequest*,
                                  v1::GetModelResponse* response) {
  *response->mutable_model() = model;
  return status;
}

grpc::Status FakeServer::Check(
    grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
    grpc::health::v1::HealthCheckResponse* response) {
  response->set_status(health);
  return status;
}

}  // namespace headcount
