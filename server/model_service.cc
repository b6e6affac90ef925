#include "server/model_service.h"

#include <algorithm>
#include <optional>

#include "server/capacity.h"
#include "server/immediate_call.h"
#include "server/lifecycle_call.h"
#include "server/model_description.h"

namespace headcount {

grpc::ServerUnaryReactor* ModelService::ListModels(
    grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
    v1::ListModelsResponse* response) {
  return Answer(RpcMethod::kListModels, context, serving_, [&] {
    auto* models = response->mutable_models();
    for (const ModelEntry& entry : serving_->models->entries()) {
      *models->Add() = Describe(entry);
    }
    for (v1::Model& model : *models) model.clear_layers();
    std::sort(models->begin(), models->end(),
              [](const v1::Model& a, const v1::Model& b) {
                return a.name() < b.name();
              });
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::GetModel(
    grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
    v1::GetModelResponse* response) {
  const std::optional<ModelEntry> entry =
      serving_->models->FindEntry(request->name());
  if (entry.has_value() && entry->state != ModelState::kReady) {
    return Answer(RpcMethod::kGetModel, context, serving_, [&] {
      *response->mutable_model() = Describe(*entry);
      return absl::OkStatus();
    });
  }
  return AnswerForModel(RpcMethod::kGetModel, context, serving_,
                        request->name(), [&](const ServedModel& model) {
                          *response->mutable_model() = Describe(
                              *serving_->models->FindEntry(model.name));
                          return absl::OkStatus();
                        });
}

grpc::ServerWriteReactor<v1::LoadModelResponse>* ModelService::LoadModel(
    grpc::CallbackServerContext* context, const v1::LoadModelRequest* request) {
  return StartLoadCall(serving_, context, *request);
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(
    grpc::CallbackServerContext* context, const v1::UnloadModelRequest* request,
    v1::UnloadModelResponse* response) {
  return StartUnloadCall(serving_, context, *request, response);
}

grpc::ServerUnaryReactor* ModelService::GetPool(
    grpc::CallbackServerContext* context, const v1::GetPoolRequest*,
    v1::GetPoolResponse* response) {
  return Answer(RpcMethod::kGetPool, context, serving_, [&] {
    *response->mutable_pool() =
        DescribePool(serving_->models->entries(), serving_->engine->Snapshot());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::PlanCapacity(
    grpc::CallbackServerContext* context,
    const v1::PlanCapacityRequest* request,
    v1::PlanCapacityResponse* response) {
  return AnswerForModel(RpcMethod::kPlanCapacity, context, serving_,
                        request->name(), [&](const ServedModel& model) {
                          return PlanServedModel(model, serving_->options,
                                                 *request, response);
                        });
}

grpc::ServerUnaryReactor* ModelService::Drain(
    grpc::CallbackServerContext* context, const v1::DrainRequest*,
    v1::DrainResponse*) {
  return StartDrainCall(serving_, context);
}

v1::Model ModelService::Describe(const ModelEntry& entry) const {
  return DescribeModel(entry, serving_->engine->Snapshot(),
                       serving_->admission->closed());
}

}  // namespace headcount
