// headcount.v1.CalibrationService; see proto/headcount/v1/calibration.proto.
#pragma once

#include <atomic>

#include "grpcpp/grpcpp.h"
#include "headcount/v1/calibration.grpc.pb.h"
#include "server/serving.h"

namespace headcount {

// Thread-safe.
class CalibrationService final
    : public v1::CalibrationService::CallbackService {
 public:
  // Unless `enabled`, every call ends with UNIMPLEMENTED.
  CalibrationService(const Serving* serving, bool enabled)
      : serving_(serving), enabled_(enabled) {}

  grpc::ServerWriteReactor<v1::ScoreGatesResponse>* ScoreGates(
      grpc::CallbackServerContext* context,
      const v1::ScoreGatesRequest* request) override;
  grpc::ServerWriteReactor<v1::LayerHeadStatistics>* CollectHeadStatistics(
      grpc::CallbackServerContext* context,
      const v1::CollectHeadStatisticsRequest* request) override;

 private:
  const Serving* const serving_;
  const bool enabled_;
  std::atomic<int> calls_{0};
};

}  // namespace headcount
