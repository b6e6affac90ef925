// Calls of ModelService that wait for ModelLifecycle.
#pragma once

#include "grpcpp/grpcpp.h"
#include "headcount/v1/model.pb.h"
#include "server/serving.h"

namespace headcount {

// The calls own themselves. What they answer is in proto/headcount/v1.
grpc::ServerWriteReactor<v1::LoadModelResponse>* StartLoadCall(
    const Serving* serving, grpc::CallbackServerContext* context,
    const v1::LoadModelRequest& request);
grpc::ServerUnaryReactor* StartUnloadCall(const Serving* serving,
                                          grpc::CallbackServerContext* context,
                                          const v1::UnloadModelRequest& request,
                                          v1::UnloadModelResponse* response);

grpc::ServerUnaryReactor* StartDrainCall(const Serving* serving,
                                         grpc::CallbackServerContext* context);

}  // namespace headcount
