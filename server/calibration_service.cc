#include "server/calibration_service.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/human.h"
#include "server/calibration_call.h"
#include "server/calibration_validation.h"
#include "server/errors.h"
#include "server/field_checks.h"
#include "server/gate_scores.h"
#include "server/head_statistics_work.h"
#include "server/limits.h"

namespace headcount {
namespace {

absl::Status CheckEnabled(bool enabled) {
  if (enabled) return absl::OkStatus();
  return WithReason(
      absl::UnimplementedError(
          "calibration is not served; start the server with `headcount serve "
          "--calibration`, or with `calibration: on` in its file"),
      Reason::kNotOffered);
}

template <typename Response>
grpc::ServerWriteReactor<Response>* StartCall(
    std::shared_ptr<CalibrationCall<Response>> call,
    const typename CalibrationCall<Response>::MakeWork& make_work) {
  call->Start(make_work);
  return call.get();
}

using ScoreGatesCall = CalibrationCall<v1::ScoreGatesResponse>;

absl::StatusOr<std::unique_ptr<ScoreGatesCall::Work>> MakeGateScores(
    const v1::ScoreGatesRequest& request, CallRecord& record) {
  const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
      record.FindModelToRun(request.model());
  if (!model.ok()) return model.status();
  absl::StatusOr<std::vector<std::vector<float>>> settings =
      CheckedSettings(request.gates(), **model);
  if (!settings.ok()) return settings.status();
  absl::StatusOr<std::vector<CheckedExample>> examples =
      CheckedExamples(request.examples(), Targets::kNeeded, **model);
  if (!examples.ok()) return examples.status();
  return std::make_unique<GateScores>(*model, *std::move(examples),
                                      *std::move(settings));
}

using StatisticsCall = CalibrationCall<v1::LayerHeadStatistics>;

// Nothing collected yet, of the heads that the model runs.
absl::StatusOr<std::shared_ptr<HeadStatistics>> EmptyStatistics(
    const Engine& engine, const ServedModel& model, bool gram) {
  const std::shared_ptr<const EngineModel> running = engine.model(model.index);
  if (running == nullptr || running->load_id != model.load_id) {
    return absl::UnavailableError("the model has been unloaded");
  }
  const HeadLayout& layout = running->heads().layout();
  const int64_t bytes = gram ? HeadStatistics::GramBytes(layout) : 0;
  if (bytes > kMaxGramBytes) {
    return FieldError(
        "gram",
        absl::StrCat("takes ", FormatByteSize(bytes), " for the heads of '",
                     model.name, "'; at most ", FormatByteSize(kMaxGramBytes)));
  }
  return std::make_shared<HeadStatistics>(layout, gram);
}

absl::StatusOr<std::unique_ptr<StatisticsCall::Work>> MakeStatistics(
    const v1::CollectHeadStatisticsRequest& request, CallRecord& record) {
  const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
      record.FindModelToRun(request.model());
  if (!model.ok()) return model.status();
  const absl::Status skip = CheckRange("skip_tokens", request.skip_tokens(), 0,
                                       (*model)->max_context);
  if (!skip.ok()) return skip;
  absl::StatusOr<std::vector<CheckedExample>> examples =
      CheckedExamples(request.examples(), Targets::kOptional, **model);
  if (!examples.ok()) return examples.status();
  absl::StatusOr<std::shared_ptr<HeadStatistics>> statistics =
      EmptyStatistics(*record.serving().engine, **model, request.gram());
  if (!statistics.ok()) return statistics.status();
  return std::make_unique<HeadStatisticsWork>(
      *model, *std::move(examples), request.skip_tokens(),
      request.answers_only(), *std::move(statistics));
}

}  // namespace

grpc::ServerWriteReactor<v1::ScoreGatesResponse>*
CalibrationService::ScoreGates(grpc::CallbackServerContext* context,
                               const v1::ScoreGatesRequest* request) {
  return StartCall<v1::ScoreGatesResponse>(
      std::make_shared<ScoreGatesCall>(RpcMethod::kScoreGates, serving_,
                                       context, &calls_),
      [&](CallRecord& record)
          -> absl::StatusOr<std::unique_ptr<ScoreGatesCall::Work>> {
        const absl::Status enabled = CheckEnabled(enabled_);
        if (!enabled.ok()) return enabled;
        return MakeGateScores(*request, record);
      });
}

grpc::ServerWriteReactor<v1::LayerHeadStatistics>*
CalibrationService::CollectHeadStatistics(
    grpc::CallbackServerContext* context,
    const v1::CollectHeadStatisticsRequest* request) {
  return StartCall<v1::LayerHeadStatistics>(
      std::make_shared<StatisticsCall>(RpcMethod::kCollectHeadStatistics,
                                       serving_, context, &calls_),
      [&](CallRecord& record)
          -> absl::StatusOr<std::unique_ptr<StatisticsCall::Work>> {
        const absl::Status enabled = CheckEnabled(enabled_);
        if (!enabled.ok()) return enabled;
        return MakeStatistics(*request, record);
      });
}

}  // namespace headcount
