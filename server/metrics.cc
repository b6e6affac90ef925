#include "server/metrics.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace headcount {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Registry;
using Labels = std::map<std::string, std::string>;
using Buckets = Histogram::BucketBoundaries;

// A model label for requests that name no served model.
constexpr char kOtherModel[] = "_other";

// Of the OpenTelemetry conventions for generative AI, with longer tails.
Buckets TtftBuckets() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
          0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80,   160};
}
Buckets DurationBuckets() {
  return {0.01, 0.02, 0.04,  0.08,  0.16,  0.32,  0.64,   1.28,
          2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68};
}
Buckets PerTokenBuckets() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
          0.3,  0.4,   0.5,  0.75,  1,   2.5};
}
Buckets GapBuckets() {
  return {0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.05,
          0.075, 0.1,    0.15,  0.2,    0.3,  0.5,   1,    2.5};
}
Buckets CallBuckets() {
  return {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,  5,     7.5,  10,    30,  60,   300};
}

constexpr int64_t kUsualContext = 8192;

// 1, 2, 5, 10, ... up to the longest context of any model.
Buckets TokenBuckets(const ModelTable& models) {
  int64_t longest = 1;
  for (const ModelEntry& model : models.entries()) {
    // One that is loaded later may have as many.
    const int64_t context =
        model.served == nullptr ? kUsualContext : model.served->max_context;
    longest = std::max(longest, context);
  }
  Buckets buckets;
  for (int64_t decade = 1; decade <= longest; decade *= 10) {
    for (const int64_t step : {1, 2, 5}) {
      if (decade * step < longest) {
        buckets.push_back(static_cast<double>(decade * step));
      }
    }
  }
  buckets.push_back(static_cast<double>(longest));
  return buckets;
}

// first, first * factor, ... up to `last`.
Buckets GeometricBuckets(double first, double factor, double last) {
  Buckets buckets;
  for (double edge = first; edge <= last; edge *= factor) {
    buckets.push_back(edge);
  }
  return buckets;
}

Family<Counter>& AddCounter(Registry& registry, const char* name,
                            const char* help) {
  return BuildCounter().Name(name).Help(help).Register(registry);
}

Family<Histogram>& AddHistogram(Registry& registry, const char* name,
                                const char* help) {
  return BuildHistogram().Name(name).Help(help).Register(registry);
}

// Reasons of requests_rejected_total: fewer than those that clients see.
const char* RejectionLabel(Reason reason) {
  switch (reason) {
    case Reason::kQueueFull:
      return "queue_full";
    case Reason::kKvExhausted:
      return "kv_exhausted";
    case Reason::kTooLong:
      return "too_long";
    case Reason::kDraining:
      return "draining";
    default:
      return "invalid";
  }
}

bool Happened(absl::Time time) { return time != absl::InfinitePast(); }

void ObserveSeconds(Histogram* histogram, absl::Duration duration) {
  histogram->Observe(std::max(0.0, absl::ToDoubleSeconds(duration)));
}

}  // namespace

absl::string_view OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kStop:
      return "stop";
    case Outcome::kLength:
      return "length";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kDeadline:
      return "deadline";
    case Outcome::kRejected:
      return "rejected";
    case Outcome::kError:
      return "error";
  }
  return "error";
}

Outcome OutcomeOf(EndCause cause) {
  switch (cause) {
    case EndCause::kStop:
      return Outcome::kStop;
    case EndCause::kLength:
      return Outcome::kLength;
    case EndCause::kCancelled:
      return Outcome::kCancelled;
    case EndCause::kDeadline:
      return Outcome::kDeadline;
    case EndCause::kError:
      return Outcome::kError;
  }
  return Outcome::kError;
}

absl::string_view GrpcCodeLabel(grpc::StatusCode code) {
  constexpr std::array<absl::string_view, 17> kLabels = {"OK",
                                                         "Canceled",
                                                         "Unknown",
                                                         "InvalidArgument",
                                                         "DeadlineExceeded",
                                                         "NotFound",
                                                         "AlreadyExists",
                                                         "PermissionDenied",
                                                         "ResourceExhausted",
                                                         "FailedPrecondition",
                                                         "Aborted",
                                                         "OutOfRange",
                                                         "Unimplemented",
                                                         "Internal",
                                                         "Unavailable",
                                                         "DataLoss",
                                                         "Unauthenticated"};
  const auto index = static_cast<size_t>(code);
  return index < kLabels.size() ? kLabels[index] : "Unknown";
}

Metrics::Metrics(const ModelTable& models)
    : registry_(std::make_shared<Registry>()) {
  AddEndings();
  AddTokens(TokenBuckets(models));
  AddTimes();
  AddPhases();
  AddMethods();
  for (const ModelEntry& model : models.entries()) {
    models_.emplace_back().name = model.name;
    if (model.served != nullptr) Of(static_cast<int>(models_.size()) - 1);
  }
}

const Metrics::PerModel& Metrics::Of(int model) {
  Slot& slot = models_[static_cast<size_t>(model)];
  absl::call_once(slot.once, [&] {
    for (const Maker& make : makers_) make(slot.name, &slot.metrics);
  });
  return slot.metrics;
}

void Metrics::AddEndings() {
  ended_ = &AddCounter(*registry_, "headcount_requests_total",
                       "Requests by ending; each exactly once.");
  rejected_ = &AddCounter(*registry_, "headcount_requests_rejected_total",
                          "Requests that were refused, by reason.");
  auto& duration =
      AddHistogram(*registry_, "headcount_request_duration_seconds",
                   "From the engine's queue to the ending.");
  makers_.push_back([this, &duration](const std::string& model, PerModel* to) {
    for (size_t o = 0; o < kNumOutcomes; ++o) {
      const auto outcome = static_cast<Outcome>(o);
      const Labels labels = {{"model", model},
                             {"outcome", std::string(OutcomeName(outcome))}};
      to->ended[o] = &ended_->Add(labels);
      // What was refused has no duration.
      if (outcome == Outcome::kRejected) continue;
      to->duration[o] = &duration.Add(labels, DurationBuckets());
    }
  });
}

void Metrics::AddTokens(const Buckets& token_buckets) {
  const auto counter = [this](const char* name, const char* help,
                              Counter* PerModel::*member) {
    auto& family = AddCounter(*registry_, name, help);
    makers_.push_back(
        [&family, member](const std::string& model, PerModel* to) {
          to->*member = &family.Add({{"model", model}});
        });
  };
  counter("headcount_prompt_tokens_total",
          "Prompt tokens of requests that ended.", &PerModel::prompt_tokens);
  counter("headcount_generated_tokens_total",
          "Tokens generated for requests that ended.",
          &PerModel::generated_tokens);
  AddHistograms("headcount_request_prompt_tokens",
                "Prompt tokens of a request.", &PerModel::request_prompt_tokens,
                token_buckets);
  AddHistograms("headcount_request_generated_tokens",
                "Tokens generated for a request.",
                &PerModel::request_generated_tokens, token_buckets);
}

void Metrics::AddTimes() {
  AddHistograms("headcount_time_to_first_token_seconds",
                "Queue and prefill, of requests that succeeded.",
                &PerModel::time_to_first_token, TtftBuckets());
  AddHistograms("headcount_time_per_output_token_seconds",
                "Mean time between the tokens of a request that succeeded.",
                &PerModel::time_per_output_token, PerTokenBuckets());
  AddHistograms("headcount_inter_token_latency_seconds",
                "Time from one token of a request to the next.",
                &PerModel::inter_token_latency, GapBuckets());
  AddHistograms("headcount_request_queue_seconds",
                "Time that a request waited to be scheduled.", &PerModel::queue,
                DurationBuckets());
  AddHistograms("headcount_request_prefill_seconds",
                "From being scheduled to the first token, or to the end of a "
                "request that only scores.",
                &PerModel::prefill, DurationBuckets());
  AddHistograms("headcount_request_decode_seconds",
                "From the first token to the ending.", &PerModel::decode,
                DurationBuckets());
}

void Metrics::AddHistograms(const char* name, const char* help,
                            Histogram* PerModel::*member,
                            const Buckets& buckets) {
  auto& family = AddHistogram(*registry_, name, help);
  makers_.push_back(
      [&family, member, buckets](const std::string& model, PerModel* to) {
        to->*member = &family.Add({{"model", model}}, buckets);
      });
}

void Metrics::AddPhases() {
  Registry& registry = *registry_;
  auto& duration = AddHistogram(registry, "headcount_step_duration_seconds",
                                "One step of the engine, by what it computed.");
  auto& sequences = AddHistogram(registry, "headcount_step_sequences",
                                 "Sequences in one step.");
  auto& tokens = AddHistogram(registry, "headcount_step_tokens",
                              "Tokens computed by one step.");
  constexpr std::array<const char*, kNumPhases> kNames = {"prefill", "decode",
                                                          "mixed"};
  for (size_t p = 0; p < kNumPhases; ++p) {
    const Labels labels = {{"phase", kNames[p]}};
    phases_[p] = {
        .duration = &duration.Add(labels, GapBuckets()),
        .sequences = &sequences.Add(labels, GeometricBuckets(1, 2, 1024)),
        .tokens = &tokens.Add(labels, [] {
          Buckets buckets = GeometricBuckets(8, 2, 16384);
          buckets.insert(buckets.begin(), 1);
          return buckets;
        }())};
  }
}

void Metrics::AddMethods() {
  Registry& registry = *registry_;
  auto& started =
      AddCounter(registry, "grpc_server_started_total", "Calls that arrived.");
  handled_ = &AddCounter(registry, "grpc_server_handled_total",
                         "Calls that ended, by status code.");
  auto& handling = AddHistogram(registry, "grpc_server_handling_seconds",
                                "From a call's arrival to its status.");
  for (size_t m = 0; m < kRpcMethods.size(); ++m) {
    const Labels labels = {
        {"grpc_type", std::string(kRpcMethods[m].type)},
        {"grpc_service", std::string(kRpcMethods[m].service)},
        {"grpc_method", std::string(kRpcMethods[m].method)}};
    methods_[m] = {.started = &started.Add(labels),
                   .handling = &handling.Add(labels, CallBuckets())};
  }
}

void Metrics::CallStarted(RpcMethod method) {
  methods_[static_cast<size_t>(method)].started->Increment();
}

void Metrics::CallHandled(RpcMethod method, grpc::StatusCode code,
                          absl::Duration duration) {
  const RpcMethodNames& names = NamesOf(method);
  handled_
      ->Add({{"grpc_type", std::string(names.type)},
             {"grpc_service", std::string(names.service)},
             {"grpc_method", std::string(names.method)},
             {"grpc_code", std::string(GrpcCodeLabel(code))}})
      .Increment();
  ObserveSeconds(methods_[static_cast<size_t>(method)].handling, duration);
}

void Metrics::RequestRejected(int model, Reason reason) {
  const std::string name = model == kNoModel
                               ? kOtherModel
                               : models_[static_cast<size_t>(model)].name;
  if (reason == Reason::kDeadline) {
    // It had passed before the request could wait.
    ended_->Add({{"model", name}, {"outcome", "deadline"}}).Increment();
    return;
  }
  ended_->Add({{"model", name}, {"outcome", "rejected"}}).Increment();
  rejected_->Add({{"model", name}, {"reason", RejectionLabel(reason)}})
      .Increment();
}

void Metrics::RequestEnded(int model, Outcome outcome, const Ending& ending) {
  const PerModel& metrics = Of(model);
  const auto index = static_cast<size_t>(outcome);
  metrics.ended[index]->Increment();
  ObserveSeconds(metrics.duration[index], ending.ended - ending.submitted);
  metrics.prompt_tokens->Increment(ending.prompt_tokens);
  metrics.generated_tokens->Increment(ending.generated_tokens);
  metrics.request_prompt_tokens->Observe(ending.prompt_tokens);
  metrics.request_generated_tokens->Observe(ending.generated_tokens);

  if (!Happened(ending.scheduled)) return;
  ObserveSeconds(metrics.queue, ending.scheduled - ending.submitted);
  const bool succeeded =
      outcome == Outcome::kStop || outcome == Outcome::kLength;
  if (!succeeded) return;
  const bool generated = Happened(ending.first_token);
  ObserveSeconds(
      metrics.prefill,
      (generated ? ending.first_token : ending.ended) - ending.scheduled);
  if (!generated) return;
  const absl::Duration decode = ending.ended - ending.first_token;
  ObserveSeconds(metrics.decode, decode);
  ObserveSeconds(metrics.time_to_first_token,
                 ending.first_token - ending.submitted);
  if (ending.generated_tokens > 1) {
    ObserveSeconds(metrics.time_per_output_token,
                   decode / (ending.generated_tokens - 1));
  }
}

void Metrics::TokenGap(int model, absl::Duration gap) {
  ObserveSeconds(Of(model).inter_token_latency, gap);
}

void Metrics::StepDone(const StepReport& report) {
  const Phase phase = report.decode_tokens == 0    ? kPrefill
                      : report.prefill_tokens == 0 ? kDecode
                                                   : kMixed;
  const PerPhase& metrics = phases_[phase];
  ObserveSeconds(metrics.duration, report.duration);
  metrics.sequences->Observe(report.sequences);
  metrics.tokens->Observe(report.prefill_tokens + report.decode_tokens);
}

void Metrics::ObserveStep(void* metrics, const StepReport& report) {
  static_cast<Metrics*>(metrics)->StepDone(report);
}

}  // namespace headcount
