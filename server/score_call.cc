#include "server/score_call.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/call_record.h"
#include "server/submission.h"
#include "server/validation.h"

namespace headcount {
namespace {

// Into a ScoreResponse or a ScoredCandidate.
template <typename Message>
void Fill(const std::vector<int32_t>& tokens,
          const std::vector<float>& logprobs, Message* message) {
  double total = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    v1::TokenLogprob* token = message->add_tokens();
    token->set_token_id(tokens[i]);
    token->set_logprob(logprobs[i]);
    total += logprobs[i];
  }
  message->set_total_logprob(total);
  message->set_mean_nll(-total / static_cast<double>(tokens.size()));
  message->set_perplexity(std::exp(message->mean_nll()));
}

class ScoreCall final : public grpc::ServerUnaryReactor,
                        public RequestSink,
                        public std::enable_shared_from_this<ScoreCall> {
 public:
  ScoreCall(const Serving* serving, grpc::CallbackServerContext* context,
            v1::ScoreResponse* response)
      : record_(RpcMethod::kScore, context, serving),
        submission_(serving->admission),
        response_(response) {}

  void Start(const v1::ScoreRequest& request) {
    self_ = shared_from_this();
    const absl::Status status = Submit(request);
    if (status.ok()) return;
    record_.AddRejection(status);
    Finish(record_.Conclude(status));
  }

  void OnScores(Scores scores) override {
    for (size_t i = 0; i < scored_.size(); ++i) {
      if (candidates_) {
        Fill(scored_[i], scores.logprobs[i], response_->add_candidates());
      } else {
        Fill(scored_[i], scores.logprobs[i], response_);
      }
    }
  }

  void OnOutput(Output) override {}  // max_tokens is 0: there is none

  void OnEnd(Ending ending) override {
    const absl::Status status = StatusOf(ending, *record_.serving().admission);
    record_.AddEnding(OutcomeOf(ending.cause), ending);
    *response_->mutable_usage() = record_.Usage();
    Finish(record_.Conclude(status));
  }

  void OnCancel() override { submission_.Abandon(); }

  void OnDone() override {
    record_.WriteLog();
    self_.reset();
  }

 private:
  absl::Status Submit(const v1::ScoreRequest& request) {
    const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
        record_.FindModelToRun(request.model());
    if (!model.ok()) return model.status();
    absl::StatusOr<Request> engine_request = ToEngineRequest(request, **model);
    if (!engine_request.ok()) return engine_request.status();
    record_.Complete(&*engine_request);
    candidates_ = !request.candidates().empty();
    scored_ = engine_request->continuations;
    return submission_.Submit(*std::move(engine_request), shared_from_this(),
                              candidates_ ? "candidates" : "continuation");
  }

  CallRecord record_;
  Submission submission_;
  v1::ScoreResponse* const response_;  // gRPC's again after Finish
  bool candidates_ = false;
  std::vector<std::vector<int32_t>> scored_;
  std::shared_ptr<ScoreCall> self_;  // until OnDone
};

}  // namespace

grpc::ServerUnaryReactor* StartScore(const Serving* serving,
                                     grpc::CallbackServerContext* context,
                                     const v1::ScoreRequest* request,
                                     v1::ScoreResponse* response) {
  const auto call = std::make_shared<ScoreCall>(serving, context, response);
  call->Start(*request);
  return call.get();
}

}  // namespace headcount
