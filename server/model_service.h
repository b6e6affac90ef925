// headcount.v1.ModelService; see proto/headcount/v1/model.proto.
#pragma once

#include "grpcpp/grpcpp.h"
#include "headcount/v1/model.grpc.pb.h"
#include "server/serving.h"

namespace headcount {

// Thread-safe.
class ModelService final : public v1::ModelService::CallbackService {
 public:
  explicit ModelService(const Serving* serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* ListModels(
      grpc::CallbackServerContext* context,
      const v1::ListModelsRequest* request,
      v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  // The model's description with what is true now; of one that did not load,
  // why.
  v1::Model Describe(const ServedModel& model,
                     const EngineSnapshot& snapshot) const;
  static v1::Model Describe(const FailedModel& model);

  const Serving* const serving_;
};

}  // namespace headcount
