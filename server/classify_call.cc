#include "server/classify_call.h"

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "server/call_record.h"
#include "server/classification.h"
#include "server/errors.h"
#include "server/submission.h"
#include "server/validation.h"

namespace headcount {
namespace {

class ClassifyCall;

std::string InputField(int input) {
  return absl::StrCat("inputs[", input, "]");
}

// One input of the call. Known to the engine until its OnEnd.
class ClassifyPart final : public RequestSink {
 public:
  ClassifyPart(std::shared_ptr<ClassifyCall> call, Admission* admission,
               int input, int32_t prompt_tokens)
      : call_(std::move(call)),
        submission_(admission),
        input_(input),
        prompt_tokens_(prompt_tokens) {}

  void OnScores(Scores scores) override { scores_ = std::move(scores); }
  void OnOutput(Output) override {}  // max_tokens is 0: there is none
  void OnEnd(Ending ending) override;

  Submission& submission() { return submission_; }
  int input() const { return input_; }
  const Scores& scores() const { return scores_; }
  int32_t prompt_tokens() const { return prompt_tokens_; }

 private:
  const std::shared_ptr<ClassifyCall> call_;
  Submission submission_;
  const int input_;
  const int32_t prompt_tokens_;
  Scores scores_;
};

class ClassifyCall final : public grpc::ServerUnaryReactor,
                           public std::enable_shared_from_this<ClassifyCall> {
 public:
  ClassifyCall(const Serving* serving, grpc::CallbackServerContext* context,
               v1::ClassifyResponse* response)
      : serving_(serving),
        record_(RpcMethod::kClassify, context, serving),
        response_(response) {}

  void Start(const v1::ClassifyRequest& request) {
    self_ = shared_from_this();
    std::vector<Request> requests;
    absl::Status status = Prepare(request, &requests);
    if (!status.ok()) {
      MutexLock lock(&mutex_);
      record_.AddRejection(status);
      error_ = std::move(status);
    } else {
      SubmitAll(std::move(requests));
    }
    OneLess();
  }

  // On the step thread.
  void PartEnded(int input, const Ending& ending) {
    const absl::Status status = StatusOf(ending, *serving_->admission);
    {
      MutexLock lock(&mutex_);
      record_.AddEnding(OutcomeOf(ending.cause), ending);
    }
    if (!status.ok()) Fail(InField(InputField(input), status));
    OneLess();
  }

  void OnCancel() override { AbandonAll(); }

  void OnDone() override {
    {
      MutexLock lock(&mutex_);
      record_.WriteLog();
      parts_.clear();
    }
    self_.reset();
  }

 private:
  // Everything that can fail before the first request is submitted.
  absl::Status Prepare(const v1::ClassifyRequest& request,
                       std::vector<Request>* requests) {
    MutexLock lock(&mutex_);
    const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
        record_.FindModelToRun(request.model());
    if (!model.ok()) return model.status();
    model_ = *model;
    absl::StatusOr<std::vector<Request>> made =
        ToEngineRequests(request, *model_);
    if (!made.ok()) return made.status();
    *requests = *std::move(made);
    for (Request& next : *requests) {
      record_.Complete(&next);
      parts_.push_back(std::make_shared<ClassifyPart>(
          shared_from_this(), serving_->admission,
          static_cast<int>(parts_.size()),
          static_cast<int32_t>(next.prompt.size())));
    }
    return absl::OkStatus();
  }

  void SubmitAll(std::vector<Request> requests) {
    const std::vector<std::shared_ptr<ClassifyPart>> parts = Parts();
    for (size_t i = 0; i < parts.size(); ++i) {
      {
        MutexLock lock(&mutex_);
        if (!error_.ok()) return;
        ++pending_;
      }
      const std::string field = InputField(parts[i]->input());
      const absl::Status status = parts[i]->submission().Submit(
          std::move(requests[i]), parts[i], field);
      if (status.ok()) continue;
      {
        MutexLock lock(&mutex_);
        record_.AddRejection(status);
      }
      Fail(absl::IsInvalidArgument(status) ? status : InField(field, status));
      OneLess();
    }
  }

  // The first failure is the call's; the other parts are of no use then.
  void Fail(absl::Status status) {
    {
      MutexLock lock(&mutex_);
      if (!error_.ok()) return;
      error_ = std::move(status);
    }
    AbandonAll();
  }

  void AbandonAll() {
    for (const std::shared_ptr<ClassifyPart>& part : Parts()) {
      part->submission().Abandon();
    }
  }

  std::vector<std::shared_ptr<ClassifyPart>> Parts() {
    MutexLock lock(&mutex_);
    return parts_;
  }

  // One fewer to wait for; the last one finishes the call, which may be gone
  // when this returns.
  void OneLess() {
    grpc::Status status;
    {
      MutexLock lock(&mutex_);
      if (--pending_ > 0) return;
      if (error_.ok()) FillResponse();
      status = record_.Conclude(error_);
    }
    Finish(status);
  }

  void FillResponse() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const std::shared_ptr<ClassifyPart>& part : parts_) {
      std::vector<double> logprobs;  // [label]
      for (const std::vector<float>& tokens : part->scores().logprobs) {
        logprobs.push_back(std::accumulate(tokens.begin(), tokens.end(), 0.0));
      }
      *response_->add_results() =
          Classify(*model_->classify, logprobs, part->prompt_tokens());
    }
    *response_->mutable_usage() = record_.Usage();
  }

  const Serving* const serving_;
  std::shared_ptr<const ServedModel> model_;  // set before the first part
  Mutex mutex_;
  CallRecord record_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  // Parts that have not ended, and Start itself.
  int pending_ ABSL_GUARDED_BY(mutex_) = 1;
  // [input]. They hold the call and it holds them until OnDone.
  std::vector<std::shared_ptr<ClassifyPart>> parts_ ABSL_GUARDED_BY(mutex_);
  v1::ClassifyResponse* const response_;  // gRPC's again after Finish
  std::shared_ptr<ClassifyCall> self_;    // until OnDone
};

void ClassifyPart::OnEnd(Ending ending) { call_->PartEnded(input_, ending); }

}  // namespace

grpc::ServerUnaryReactor* StartClassify(const Serving* serving,
                                        grpc::CallbackServerContext* context,
                                        const v1::ClassifyRequest* request,
                                        v1::ClassifyResponse* response) {
  const auto call = std::make_shared<ClassifyCall>(serving, context, response);
  call->Start(*request);
  return call.get();
}

}  // namespace headcount
