#include "server/model_service.h"

#include <algorithm>

#include "server/immediate_call.h"

namespace headcount {

grpc::ServerUnaryReactor* ModelService::ListModels(
    grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
    v1::ListModelsResponse* response) {
  return Answer(RpcMethod::kListModels, context, serving_, [&] {
    const EngineSnapshot snapshot = serving_->engine->Snapshot();
    auto* models = response->mutable_models();
    for (const ServedModel& model : serving_->models->served()) {
      *models->Add() = Describe(model, snapshot);
    }
    for (const FailedModel& model : serving_->models->failed()) {
      *models->Add() = Describe(model);
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
  const FailedModel* failed = serving_->models->FindFailed(request->name());
  if (failed != nullptr) {
    return Answer(RpcMethod::kGetModel, context, serving_, [&] {
      *response->mutable_model() = Describe(*failed);
      return absl::OkStatus();
    });
  }
  return AnswerForModel(RpcMethod::kGetModel, context, serving_,
                        request->name(), [&](const ServedModel& model) {
                          *response->mutable_model() =
                              Describe(model, serving_->engine->Snapshot());
                          return absl::OkStatus();
                        });
}

v1::Model ModelService::Describe(const ServedModel& model,
                                 const EngineSnapshot& snapshot) const {
  v1::Model description = model.description;
  description.set_state(serving_->admission->closed()
                            ? v1::Model::STATE_DRAINING
                            : v1::Model::STATE_READY);
  const EngineSnapshot::PerModel& now =
      snapshot.models[static_cast<size_t>(model.index)];
  description.set_kv_bytes_used(now.kv.used);
  description.set_requests_running(now.running);
  description.set_requests_waiting(now.waiting);
  return description;
}

v1::Model ModelService::Describe(const FailedModel& model) {
  v1::Model description;
  description.set_name(model.name);
  description.set_state(v1::Model::STATE_FAILED);
  description.set_error(model.error);
  return description;
}

}  // namespace headcount
