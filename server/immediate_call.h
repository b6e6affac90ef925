// Unary calls that are answered on the spot.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/grpcpp.h"
#include "server/call_record.h"
#include "server/rpc_method.h"
#include "server/serving.h"

namespace headcount {

// Counts, logs and finishes the call.
grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const absl::Status& status,
                                    CallRecord* record);

// Finds the model, lets `answer` fill the response, counts, logs and finishes
// the call.
grpc::ServerUnaryReactor* AnswerForModel(
    RpcMethod method, grpc::CallbackServerContext* context,
    const Serving* serving, absl::string_view model_name,
    absl::FunctionRef<absl::Status(const ServedModel&)> answer);

// The same for a call that names no model.
grpc::ServerUnaryReactor* Answer(RpcMethod method,
                                 grpc::CallbackServerContext* context,
                                 const Serving* serving,
                                 absl::FunctionRef<absl::Status()> answer);

}  // namespace headcount
