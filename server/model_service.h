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

  grpc::ServerWriteReactor<v1::LoadModelResponse>* LoadModel(
      grpc::CallbackServerContext* context,
      const v1::LoadModelRequest* request) override;
  grpc::ServerUnaryReactor* UnloadModel(
      grpc::CallbackServerContext* context,
      const v1::UnloadModelRequest* request,
      v1::UnloadModelResponse* response) override;
  grpc::ServerUnaryReactor* GetPool(grpc::CallbackServerContext* context,
                                    const v1::GetPoolRequest* request,
                                    v1::GetPoolResponse* response) override;
  grpc::ServerUnaryReactor* PlanCapacity(
      grpc::CallbackServerContext* context,
      const v1::PlanCapacityRequest* request,
      v1::PlanCapacityResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  v1::Model Describe(const ModelEntry& entry) const;

  const Serving* const serving_;
};

}  // namespace headcount
