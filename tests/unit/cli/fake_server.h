// A server whose answers the test writes, on a real port.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/server.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {

class FakeServer final : public v1::InferenceService::Service,
                         public v1::ModelService::Service,
                         public grpc::health::v1::Health::Service {
 public:
  FakeServer();
  ~FakeServer() override;

  const std::string& address() const { return address_; }

  // What calls answer. Set before the call.
  grpc::Status status;                          // of every call
  std::vector<v1::GenerateResponse> responses;  // of Generate
  // Called when Generate has begun; it then answers until it is cancelled.
  std::function<void()> on_endless_generate;
  v1::Model model;
  grpc::health::v1::HealthCheckResponse::ServingStatus health =
      grpc::health::v1::HealthCheckResponse::SERVING;

  // What was asked last, and how often Classify was.
  v1::GenerateRequest last_generate();
  std::vector<v1::ClassifyRequest> classify_requests();

 private:
  grpc::Status Generate(
      grpc::ServerContext* context, const v1::GenerateRequest* request,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  // "spam" with 0.75 for a text that contains "win"; "ham" otherwise.
  grpc::Status Classify(grpc::ServerContext* context,
                        const v1::ClassifyRequest* request,
                        v1::ClassifyResponse* response) override;
  grpc::Status ListModels(grpc::ServerContext* context,
                          const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext* context,
                        const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;
  grpc::Status Check(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override;

  Mutex mutex_;
  v1::GenerateRequest last_generate_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ClassifyRequest> classify_requests_ ABSL_GUARDED_BY(mutex_);
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace headcount
