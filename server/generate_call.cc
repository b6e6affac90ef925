#include "server/generate_call.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "grpcpp/alarm.h"
#include "server/call_record.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/outbox.h"
#include "server/submission.h"
#include "server/validation.h"

namespace headcount {
namespace {

// The engine speaks through RequestSink, gRPC through the reactor. One write is
// in flight at most, and Finish comes only when none is and the engine has
// spoken its last word, so that nobody holds what gRPC has let go.
//
// No gRPC operation starts with mutex_ held.
class GenerateCall final
    : public grpc::ServerWriteReactor<v1::GenerateResponse>,
      public RequestSink,
      public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(const Serving* serving, grpc::CallbackServerContext* context)
      : context_(context),
        record_(RpcMethod::kGenerate, context, serving),
        submission_(serving->admission) {}

  void Start(const v1::GenerateRequest& request) {
    self_ = shared_from_this();
    const absl::Status status = Submit(request);
    if (status.ok()) return;
    record_.AddRejection(status);
    Conclude(status);
  }

  void OnOutput(Output output) override {
    const absl::Time now = record_.serving().clock->Now();
    if (!output.tokens.empty()) {
      if (last_token_.has_value()) {
        record_.serving().metrics->TokenGap(model_, now - *last_token_);
      }
      last_token_ = now;
    }
    Offer(ToResponse(std::move(output)), now);
    Pump();
  }

  void OnEnd(Ending ending) override {
    absl::Status status = StatusOf(ending, *record_.serving().admission);
    Outcome outcome = OutcomeOf(ending.cause);
    if (slow()) {
      status = WithReason(
          absl::ResourceExhaustedError("slow reader: the answer was not read"),
          Reason::kSlowReader);
      outcome = Outcome::kError;
    }
    record_.AddEnding(outcome, ending);
    if (status.ok()) {
      MutexLock lock(&mutex_);
      outbox_.PushLast(LastResponse(ending));
    }
    LimitDelivery();
    Conclude(status);
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) outbox_.Clear();
    }
    if (!ok) submission_.Abandon();
    Pump();
  }

  void OnCancel() override { submission_.Abandon(); }

  void OnDone() override {
    {
      MutexLock lock(&mutex_);
      done_ = true;
      delivery_limit_.Cancel();
    }
    record_.WriteLog();
    self_.reset();
  }

 private:
  absl::Status Submit(const v1::GenerateRequest& request) {
    const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
        record_.FindModelToRun(request.model());
    if (!model.ok()) return model.status();
    model_ = (*model)->position;
    absl::StatusOr<Request> engine_request = ToEngineRequest(request, **model);
    if (!engine_request.ok()) return engine_request.status();
    record_.Complete(&*engine_request);
    logprobs_ = request.logprobs();
    return submission_.Submit(*std::move(engine_request), shared_from_this(),
                              "prompt");
  }

  v1::GenerateResponse ToResponse(Output output) const {
    v1::GenerateResponse response;
    response.set_text(std::move(output.text));
    for (const GeneratedToken& token : output.tokens) {
      v1::GeneratedToken* out = response.add_tokens();
      out->set_token_id(token.id);
      if (logprobs_) out->set_logprob(token.logprob);
      for (const TopLogprob& top : token.top) {
        v1::TokenLogprob* alternative = out->add_top_logprobs();
        alternative->set_token_id(top.token);
        alternative->set_logprob(top.logprob);
      }
    }
    return response;
  }

  v1::GenerateResponse LastResponse(const Ending& ending) const {
    v1::GenerateResponse response;
    response.set_finish_reason(ending.cause == EndCause::kStop
                                   ? v1::FINISH_REASON_STOP
                                   : v1::FINISH_REASON_LENGTH);
    if (ending.stop_id.has_value()) {
      response.set_stop_token_id(*ending.stop_id);
    } else if (!ending.stop_string.empty()) {
      response.set_stop_string(ending.stop_string);
    }
    if (ending.choice.has_value()) response.set_choice(*ending.choice);
    *response.mutable_usage() = record_.Usage();
    return response;
  }

  // Queues a message, or gives the request up if the reader is too slow for it.
  void Offer(v1::GenerateResponse response, absl::Time now) {
    {
      MutexLock lock(&mutex_);
      if (slow_ || outbox_.Push(std::move(response), now)) return;
      slow_ = true;
      outbox_.Clear();
    }
    submission_.Abandon();
  }

  bool slow() {
    MutexLock lock(&mutex_);
    return slow_;
  }

  // A reader that stops for good must not keep the call for ever.
  void LimitDelivery() {
    MutexLock lock(&mutex_);
    if (done_) return;
    const absl::Time limit = record_.serving().clock->Now() + kDeliveryTime;
    delivery_limit_.Set(absl::ToChronoTime(limit),
                        [weak = weak_from_this()](bool reached) {
                          if (!reached) return;
                          const auto call = weak.lock();
                          if (call != nullptr) call->Reset();
                        });
  }

  void Reset() {
    MutexLock lock(&mutex_);
    if (!done_) context_->TryCancel();
  }

  void Conclude(const absl::Status& status) {
    grpc::Status final_status = record_.Conclude(status);
    {
      MutexLock lock(&mutex_);
      final_status_ = std::move(final_status);
    }
    Pump();
  }

  // Starts the next operation, if there is one to start. The call may be gone
  // when it returns.
  void Pump() {
    enum { kNothing, kWrite, kWriteLast, kFinish } next = kNothing;
    grpc::Status status;
    {
      MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (!outbox_.empty()) {
        in_flight_ = outbox_.Pop();
        writing_ = true;
        next = kWrite;
      }
      if (outbox_.empty() && final_status_.has_value()) {
        finished_ = true;
        status = *final_status_;
        next = next == kWrite ? kWriteLast : kFinish;
      }
    }
    switch (next) {
      case kNothing:
        return;
      case kWrite:
        return StartWrite(&in_flight_);
      case kWriteLast:
        return StartWriteAndFinish(&in_flight_, grpc::WriteOptions(), status);
      case kFinish:
        return Finish(status);
    }
  }

  grpc::CallbackServerContext* const context_;  // not after OnDone
  // Used by Start, then by the engine's thread until OnEnd, then by OnDone.
  CallRecord record_;
  Submission submission_;
  int model_ = 0;
  bool logprobs_ = false;
  std::optional<absl::Time> last_token_;

  Mutex mutex_;
  Outbox outbox_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> final_status_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool slow_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Alarm delivery_limit_ ABSL_GUARDED_BY(mutex_);

  v1::GenerateResponse in_flight_;      // gRPC's while writing_
  std::shared_ptr<GenerateCall> self_;  // until OnDone
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(
    const Serving* serving, grpc::CallbackServerContext* context,
    const v1::GenerateRequest* request) {
  const auto call = std::make_shared<GenerateCall>(serving, context);
  call->Start(*request);
  return call.get();
}

}  // namespace headcount
