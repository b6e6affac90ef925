// headcount.v1.InferenceService; see proto/headcount/v1/inference.proto.
#pragma once

#include "grpcpp/grpcpp.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "server/serving.h"

namespace headcount {

// Thread-safe.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  explicit InferenceService(const Serving* serving) : serving_(serving) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context,
      const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Classify(grpc::CallbackServerContext* context,
                                     const v1::ClassifyRequest* request,
                                     v1::ClassifyResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(
      grpc::CallbackServerContext* context,
      const v1::DetokenizeRequest* request,
      v1::DetokenizeResponse* response) override;

 private:
  const Serving* const serving_;
};

}  // namespace headcount
