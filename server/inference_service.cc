#include "server/inference_service.h"

#include <vector>

#include "absl/status/statusor.h"
#include "server/call_record.h"
#include "server/classify_call.h"
#include "server/generate_call.h"
#include "server/immediate_call.h"
#include "server/score_call.h"
#include "server/validation.h"

namespace headcount {
namespace {

absl::Status TokenizeText(const v1::TokenizeRequest& request,
                          const ServedModel& model,
                          v1::TokenizeResponse* response) {
  const absl::Status status = CheckTokenizeRequest(request);
  if (!status.ok()) return status;
  const auto append = [response](absl::Span<const int32_t> ids) {
    response->mutable_ids()->Add(ids.begin(), ids.end());
  };
  const Tokenizer& tokenizer = *model.tokenizer;
  if (request.add_special_tokens()) append(tokenizer.prefix());
  append(tokenizer.Encode(request.text()));
  if (request.add_special_tokens()) append(tokenizer.suffix());
  return absl::OkStatus();
}

absl::Status DetokenizeIds(const v1::DetokenizeRequest& request,
                           const ServedModel& model,
                           v1::DetokenizeResponse* response) {
  const absl::Status status = CheckDetokenizeRequest(request, model);
  if (!status.ok()) return status;
  response->set_text(
      model.tokenizer->Decode(request.ids(), request.keep_special_tokens()));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return StartGenerate(serving_, context, request);
}

grpc::ServerUnaryReactor* InferenceService::Score(
    grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
    v1::ScoreResponse* response) {
  return StartScore(serving_, context, request, response);
}

grpc::ServerUnaryReactor* InferenceService::Classify(
    grpc::CallbackServerContext* context, const v1::ClassifyRequest* request,
    v1::ClassifyResponse* response) {
  return StartClassify(serving_, context, request, response);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(
    grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
    v1::TokenizeResponse* response) {
  return AnswerForModel(RpcMethod::kTokenize, context, serving_,
                        request->model(), [&](const ServedModel& model) {
                          return TokenizeText(*request, model, response);
                        });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(
    grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
    v1::DetokenizeResponse* response) {
  return AnswerForModel(RpcMethod::kDetokenize, context, serving_,
                        request->model(), [&](const ServedModel& model) {
                          return DetokenizeIds(*request, model, response);
                        });
}

}  // namespace headcount
