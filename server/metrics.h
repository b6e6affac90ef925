// Counters and histograms of what happens; what is true at a moment is in
// engine_collector.h. Names, labels and buckets: docs/metrics.md.
//
// A request here is one sequence of the engine: each input of a Classify is
// one. Calls are counted by grpc_server_*.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "grpcpp/support/status.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/errors.h"
#include "server/model_table.h"
#include "server/rpc_method.h"

namespace headcount {

// How a request ended, as a label.
enum class Outcome { kStop, kLength, kCancelled, kDeadline, kRejected, kError };
inline constexpr int kNumOutcomes = 6;
absl::string_view OutcomeName(Outcome outcome);
Outcome OutcomeOf(EndCause cause);

// The name that gRPC dashboards expect, such as "OK" or "InvalidArgument".
absl::string_view GrpcCodeLabel(grpc::StatusCode code);

// Thread-safe. No call blocks for longer than another one's count.
class Metrics {
 public:
  explicit Metrics(const ModelTable& models);

  void CallStarted(RpcMethod method);
  void CallHandled(RpcMethod method, grpc::StatusCode code,
                   absl::Duration duration);

  // `model` is a position in the table, or kNoModel where the request names
  // none that is served.
  static constexpr int kNoModel = -1;
  void RequestRejected(int model, Reason reason);
  void RequestEnded(int model, Outcome outcome, const Ending& ending);
  void TokenGap(int model, absl::Duration gap);

  void StepDone(const StepReport& report);
  // Engine::SetStepObserver(&Metrics::ObserveStep, metrics).
  static void ObserveStep(void* metrics, const StepReport& report);

  const std::shared_ptr<prometheus::Registry>& registry() const {
    return registry_;
  }

 private:
  enum Phase { kPrefill, kDecode, kMixed, kNumPhases };
  struct PerModel {
    std::array<prometheus::Counter*, kNumOutcomes> ended = {};
    std::array<prometheus::Histogram*, kNumOutcomes> duration = {};
    prometheus::Counter* prompt_tokens = nullptr;
    prometheus::Counter* generated_tokens = nullptr;
    prometheus::Histogram* time_to_first_token = nullptr;
    prometheus::Histogram* time_per_output_token = nullptr;
    prometheus::Histogram* inter_token_latency = nullptr;
    prometheus::Histogram* queue = nullptr;
    prometheus::Histogram* prefill = nullptr;
    prometheus::Histogram* decode = nullptr;
    prometheus::Histogram* request_prompt_tokens = nullptr;
    prometheus::Histogram* request_generated_tokens = nullptr;
  };
  struct PerPhase {
    prometheus::Histogram* duration;
    prometheus::Histogram* sequences;
    prometheus::Histogram* tokens;
  };
  struct PerMethod {
    prometheus::Counter* started;
    prometheus::Histogram* handling;
  };

  // A model's series begin when it is loaded, or used, for the first time.
  struct Slot {
    std::string name;
    absl::once_flag once;
    PerModel metrics;
  };
  using Maker = std::function<void(const std::string& model, PerModel* to)>;
  using Buckets = prometheus::Histogram::BucketBoundaries;

  const PerModel& Of(int model);

  void AddEndings();
  void AddTokens(const Buckets& token_buckets);
  void AddTimes();
  // One histogram for each model.
  void AddHistograms(const char* name, const char* help,
                     prometheus::Histogram* PerModel::*member,
                     const Buckets& buckets);
  void AddPhases();
  void AddMethods();

  std::shared_ptr<prometheus::Registry> registry_;
  std::vector<Maker> makers_;  // of each family that has a series for a model
  std::deque<Slot> models_;    // by position in the table
  std::array<PerPhase, kNumPhases> phases_;
  std::array<PerMethod, kRpcMethods.size()> methods_;
  prometheus::Family<prometheus::Counter>* ended_ = nullptr;
  prometheus::Family<prometheus::Counter>* rejected_ = nullptr;
  prometheus::Family<prometheus::Counter>* handled_ = nullptr;
};

}  // namespace headcount
