#include "server/model_service.h"

#include <algorithm>
#include <vector>

#include "server/immediate_call.h"

namespace headcount {

grpc::ServerUnaryReactor* ModelService::ListModels(
    grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
    v1::ListModelsResponse* response) {
  return Answer(RpcMethod::kListModels, context, serving_, [&] {
    const EngineSnapshot snapshot = serving_->engine->Snapshot();
    std::vector<const ServedModel*> models;
    for (const ServedModel& model : serving_->models->all()) {
      models.push_back(&model);
    }
    std::sort(models.begin(), models.end(),
              [](const ServedModel* a, const ServedModel* b) {
                return a->name < b->name;
              });
    for (const ServedModel* model : models) {
      v1::Model* out = response->add_models();
      *out = Describe(*model, snapshot);
      out->clear_layers();
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::GetModel(
    grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
    v1::GetModelResponse* response) {
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
  description.set_kv_bytes_used(now.kv_bytes);
  description.set_requests_running(now.running);
  description.set_requests_waiting(now.waiting);
  return description;
}

}  // namespace headcount
