// One request as its caller sees it: which logits rows are scored or drawn
// from, the text so far, and why it ends.
//
// A step is AppendRows, then Take with the results of those rows, then Deliver.
// Text is what the detokenizer is sure of and no stop string can still begin
// in. Of the first min_tokens tokens none is a stop token, and no stop string
// begins in their text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "backend/sampling.h"
#include "engine/choice_walk.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace headcount {

// Not thread-safe. The tokenizer outlives it.
class Generation {
 public:
  // eos_ids: the model's end-of-text ids.
  Generation(const Request& request, const std::vector<int32_t>& eos_ids,
             const Tokenizer* tokenizer, std::shared_ptr<RequestSink> sink,
             absl::Time submitted);

  // A step that computes something of it is planned; the first one counts.
  void Start(int32_t cached_tokens, absl::Time now);
  bool started() const { return ending_.scheduled != absl::InfinitePast(); }

  int model() const { return model_; }
  // See Request.
  absl::Span<const float> head_gates() const { return head_gates_; }
  HeadStatistics* statistics() const { return statistics_.get(); }
  // The first position that they have not counted, also after a preemption.
  int32_t statistics_from() const { return statistics_from_; }
  LayerInputs* kept_inputs() const { return kept_inputs_.get(); }
  const LayerInputs* inputs() const { return inputs_.get(); }
  int32_t first_layer() const { return first_layer_; }

  // Adds what is to be scored or drawn from the logits of `part`, the first of
  // which is row `first_row` of the step. The rows' spans are valid until Take.
  void AppendRows(const StepPart& part, int32_t first_row,
                  std::vector<SampleRow>* rows) const;

  // The results of the rows that AppendRows added for `part`.
  StepResult Take(const StepPart& part, absl::Span<const SampleResult> results,
                  absl::Time now);

  // Ends it for a reason that is not in its tokens. Once.
  void End(EndCause cause, absl::Status status, absl::Time now);
  bool ended() const { return ended_; }

  // Tells the sink what there is to tell: scores, output, ending.
  void Deliver();

 private:
  SampleRow ScoreRow(const Sequence& sequence, int32_t index) const;
  SampleRow DrawRow(int32_t index) const;
  void TakeScores(const Sequence& sequence, const SampleResult& result);
  // Adds a drawn token; returns why it is the last, if it is.
  std::optional<EndCause> Accept(const SampleResult& drawn, bool last);
  void CountUse(int32_t token, int32_t generated);
  std::string Shown(std::string piece);
  void Finish(EndCause cause, absl::Time now);

  const int model_;
  const SamplingParams sampling_;
  const std::vector<float> head_gates_;
  const std::vector<int32_t> first_scored_;  // [continuation] its first token
  const std::shared_ptr<LogprobRows> kept_rows_;  // see Request
  const std::shared_ptr<const LogprobRows> reference_rows_;
  const std::shared_ptr<HeadStatistics> statistics_;
  int32_t statistics_from_;
  const std::shared_ptr<LayerInputs> kept_inputs_;
  const std::shared_ptr<const LayerInputs> inputs_;
  const int32_t first_layer_;
  const std::vector<int32_t> stop_ids_;  // end of text included
  const std::vector<TokenBias> biases_;  // by rising id
  const std::shared_ptr<RequestSink> sink_;

  // A function of the sequence's tokens, like all that a draw depends on. Empty
  // without penalties.
  std::vector<TokenUse> uses_;  // by rising id
  ChoiceWalk choices_;
  Detokenizer detokenizer_;
  StopMatcher stop_matcher_;

  // News that the sink has not heard yet.
  Scores scores_;
  bool scores_due_ = false;
  Output output_;
  Ending ending_;
  bool ended_ = false;
};

}  // namespace headcount
