// A call of the CalibrationService: many requests of the engine, a bounded
// number at once, and a stream of answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "grpcpp/alarm.h"
#include "grpcpp/grpcpp.h"
#include "server/calibration_work.h"
#include "server/call_record.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/submission.h"

namespace headcount {

// A place among the kMaxCalibrationCalls that may run at once. The count
// outlives it.
class CalibrationSlot {
 public:
  explicit CalibrationSlot(std::atomic<int>* calls)
      : calls_(calls), taken_(calls->fetch_add(1) < kMaxCalibrationCalls) {}
  ~CalibrationSlot() { calls_->fetch_sub(1); }
  CalibrationSlot(const CalibrationSlot&) = delete;
  CalibrationSlot& operator=(const CalibrationSlot&) = delete;

  // ResourceExhausted when there was none.
  absl::Status Check() const {
    if (taken_) return absl::OkStatus();
    return WithRetry(
        WithReason(absl::ResourceExhaustedError(absl::StrCat(
                       kMaxCalibrationCalls,
                       " calibration calls run already; try again later")),
                   Reason::kQueueFull),
        kMinRetryDelay);
  }

 private:
  std::atomic<int>* const calls_;
  const bool taken_;
};

// The engine speaks through the sinks of the parts, on its own thread, and gRPC
// through the reactor. Whoever has news changes the state and pumps; one of
// them at a time does what the state asks for, until there is nothing to do.
// No gRPC operation and no call to the engine starts with mutex_ held.
template <typename Response>
class CalibrationCall final
    : public grpc::ServerWriteReactor<Response>,
      public std::enable_shared_from_this<CalibrationCall<Response>> {
 public:
  using Work = CalibrationWork<Response>;
  // Finds the model of `record` and makes the work.
  using MakeWork =
      std::function<absl::StatusOr<std::unique_ptr<Work>>(CallRecord& record)>;

  CalibrationCall(RpcMethod method, const Serving* serving,
                  grpc::CallbackServerContext* context, std::atomic<int>* calls)
      : serving_(serving),
        context_(context),
        slot_(calls),
        record_(method, context, serving) {}

  void Start(const MakeWork& make_work) {
    self_ = this->shared_from_this();
    {
      MutexLock lock(&mutex_);
      absl::Status status = slot_.Check();
      if (status.ok()) {
        absl::StatusOr<std::unique_ptr<Work>> work = make_work(record_);
        status = work.status();
        if (work.ok()) work_ = *std::move(work);
      }
      if (!status.ok()) {
        record_.AddRejection(status);
        error_ = std::move(status);
      } else {
        LimitDelivery();
      }
    }
    Pump();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    if (!ok) Fail(absl::CancelledError("cancelled"));
    Pump();
  }

  void OnCancel() override {
    Fail(absl::CancelledError("cancelled"));
    Pump();
  }

  void OnDone() override {
    {
      MutexLock lock(&mutex_);
      done_ = true;
      delivery_limit_.Cancel();
      record_.WriteLog();
    }
    self_.reset();
  }

 private:
  // One request of the call. Known to the engine until its OnEnd.
  class Part final : public RequestSink {
   public:
    Part(std::shared_ptr<CalibrationCall> call, int64_t id, std::string field)
        : submission(call->serving_->admission),
          call_(std::move(call)),
          id_(id),
          field_(std::move(field)) {}

    void OnScores(Scores scores) override { scores_ = std::move(scores); }
    void OnOutput(Output) override {}  // max_tokens is 0: there is none
    void OnEnd(Ending ending) override {
      call_->PartEnded(*this, std::move(ending));
    }

    int64_t id() const { return id_; }
    const std::string& field() const { return field_; }
    const Scores& scores() const { return scores_; }

    Submission submission;

   private:
    const std::shared_ptr<CalibrationCall> call_;
    const int64_t id_;
    const std::string field_;
    Scores scores_;
  };

  // On the step thread.
  void PartEnded(const Part& part, const Ending& ending) {
    absl::Status status = StatusOf(ending, *serving_->admission);
    {
      MutexLock lock(&mutex_);
      record_.AddEnding(OutcomeOf(ending.cause), ending);
      running_.erase(part.id());
      ++parts_ended_;
      if (status.ok() && error_.ok()) {
        status = work_->End(part.id(), part.scores());
      }
    }
    if (!status.ok()) Fail(InField(part.field(), status));
    Pump();
  }

  // The first failure is the call's; the parts that run are of no use then.
  void Fail(absl::Status status) {
    std::vector<std::shared_ptr<Part>> running;
    {
      MutexLock lock(&mutex_);
      if (!error_.ok()) return;
      error_ = std::move(status);
      for (const auto& [id, part] : running_) running.push_back(part);
    }
    for (const std::shared_ptr<Part>& part : running) {
      part->submission.Abandon();
    }
  }

  // Does what there is to do, unless somebody does already. Nobody but the
  // caller may keep the call when it returns.
  void Pump() {
    const auto self = this->shared_from_this();
    {
      MutexLock lock(&mutex_);
      if (pumping_) return;
      pumping_ = true;
    }
    while (DoNext()) {
    }
  }

  // Does one thing. False, and nobody pumps any more, if there is none.
  bool DoNext() {
    std::optional<grpc::Status> finish;
    std::optional<CalibrationPart> part;
    std::shared_ptr<Part> sink;
    {
      MutexLock lock(&mutex_);
      if (!finished_ && PrepareWrite()) {
        writing_ = true;
      } else if (!finished_ && PreparePart()) {
        part = std::exchange(next_part_, std::nullopt);
        sink = std::make_shared<Part>(this->shared_from_this(), part->id,
                                      part->field);
        running_[part->id] = sink;
        record_.Complete(&part->request);
      } else if (!finished_ && running_.empty() && !writing_) {
        finished_ = true;
        finish = record_.Conclude(error_);
      } else {
        pumping_ = false;
        return false;
      }
    }
    if (finish.has_value()) {
      this->Finish(*finish);
    } else if (part.has_value()) {
      SubmitPart(*std::move(part), sink);
    } else {
      this->StartWrite(&in_flight_);
    }
    return true;
  }

  bool PrepareWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || !error_.ok()) return false;
    std::optional<Response> response = work_->TakeResponse();
    if (!response.has_value()) return false;
    in_flight_ = *std::move(response);
    return true;
  }

  bool PreparePart() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!error_.ok() || running_.size() >= kMaxCalibrationRequests) {
      return false;
    }
    // Refused while others of ours ran: one of them has to end first.
    if (!running_.empty() && refused_at_ == parts_ended_) return false;
    if (!next_part_.has_value()) next_part_ = work_->Begin();
    return next_part_.has_value();
  }

  void SubmitPart(CalibrationPart part, const std::shared_ptr<Part>& sink) {
    int64_t ended_before = 0;
    bool alone = false;
    {
      MutexLock lock(&mutex_);
      ended_before = parts_ended_;
      alone = running_.size() == 1;
    }
    const absl::Status status =
        sink->submission.Submit(part.request, sink, part.field);
    if (status.ok()) return;
    {
      MutexLock lock(&mutex_);
      running_.erase(part.id);
      if (absl::IsResourceExhausted(status) && !alone && error_.ok()) {
        refused_at_ = ended_before;
        next_part_ = std::move(part);
        return;
      }
      record_.AddRejection(status);
    }
    Fail(absl::IsInvalidArgument(status) ? status
                                         : InField(part.field, status));
  }

  // A reader that stops for good must not keep the call for ever.
  void LimitDelivery() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Time limit = record_.deadline() + kDeliveryTime;
    delivery_limit_.Set(absl::ToChronoTime(limit),
                        [weak = this->weak_from_this()](bool reached) {
                          if (!reached) return;
                          const auto call = weak.lock();
                          if (call != nullptr) call->Reset();
                        });
  }

  void Reset() {
    MutexLock lock(&mutex_);
    if (!done_) context_->TryCancel();
  }

  const Serving* const serving_;
  grpc::CallbackServerContext* const context_;  // not after OnDone
  const CalibrationSlot slot_;

  Mutex mutex_;
  CallRecord record_ ABSL_GUARDED_BY(mutex_);
  // Null if the call was refused.
  std::unique_ptr<Work> work_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  // Parts that the engine has or is about to get, by id. They hold the call.
  std::map<int64_t, std::shared_ptr<Part>> running_ ABSL_GUARDED_BY(mutex_);
  int64_t parts_ended_ ABSL_GUARDED_BY(mutex_) = 0;
  // The next to submit; parts_ended_ when the queue was full for it.
  std::optional<CalibrationPart> next_part_ ABSL_GUARDED_BY(mutex_);
  int64_t refused_at_ ABSL_GUARDED_BY(mutex_) = -1;
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Alarm delivery_limit_ ABSL_GUARDED_BY(mutex_);

  Response in_flight_;                     // gRPC's while writing_
  std::shared_ptr<CalibrationCall> self_;  // until OnDone
};

}  // namespace headcount
