#include "server/immediate_call.h"

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace headcount {

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const absl::Status& status,
                                    CallRecord* record) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(record->Conclude(status));
  record->WriteLog();
  return reactor;
}

grpc::ServerUnaryReactor* AnswerForModel(
    RpcMethod method, grpc::CallbackServerContext* context,
    const Serving* serving, absl::string_view model_name,
    absl::FunctionRef<absl::Status(const ServedModel&)> answer) {
  CallRecord record(method, context, serving);
  const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
      record.FindModel(model_name);
  if (!model.ok()) return FinishNow(context, model.status(), &record);
  return FinishNow(context, answer(**model), &record);
}

grpc::ServerUnaryReactor* Answer(RpcMethod method,
                                 grpc::CallbackServerContext* context,
                                 const Serving* serving,
                                 absl::FunctionRef<absl::Status()> answer) {
  CallRecord record(method, context, serving);
  return FinishNow(context, answer(), &record);
}

}  // namespace headcount
