// Scores of settings of the gates from a server's CalibrationService.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/client.h"
#include "cli/open_calls.h"
#include "cli/prune_data.h"
#include "cli/score_journal.h"
#include "headcount/v1/calibration.grpc.pb.h"
#include "headcount/v1/model.pb.h"
#include "prune/gate_scorer.h"
#include "prune/prune_units.h"

namespace headcount {

// What the description of a served model says of its heads.
PrunableModel PrunableModelOf(const v1::Model& model);

// The gates that take out what `drops` names: 0 for these, 1 for others.
v1::HeadGates GatesOf(const PrunableModel& model,
                      const std::vector<LayerDrop>& drops);

// Not thread-safe. All that the constructor gets outlives it.
class RpcGateScorer final : public GateScorer {
 public:
  struct Source {
    const Client* client;
    OpenCalls* calls;
    std::string model;  // its name
    const PrunableModel* layers;
    const PruneUnits* units;
    const PruneData* data;
    ScoreJournal* journal;
  };

  // `on_progress` is called with the texts times settings that are done, those
  // found in the journal included.
  RpcGateScorer(Source source, std::function<void(int64_t)> on_progress);

  absl::StatusOr<ScoreTable> Score(
      Split split, const std::vector<UnitSet>& settings) override;

  int64_t forwards() const { return forwards_; }  // done, as in on_progress

 private:
  // Settings that fit into one request, with the name that the journal knows
  // them by.
  struct Question {
    Split split;
    std::vector<v1::HeadGates> gates;
    std::string hash;
  };

  absl::StatusOr<std::vector<Question>> MakeQuestions(
      Split split, const std::vector<UnitSet>& settings) const;
  absl::Status Answer(const Question& question);
  absl::Status Ask(const Question& question,
                   const std::vector<int64_t>& examples);
  absl::Status Keep(const Question& question, int64_t example,
                    const v1::ScoreGatesResponse& response);
  size_t BatchEnd(const Question& question,
                  const std::vector<int64_t>& examples, size_t begin) const;
  void Done(const Question& question);

  const Source source_;
  const std::function<void(int64_t)> on_progress_;
  const std::unique_ptr<v1::CalibrationService::Stub> stub_;
  // Texts times settings of the next call: twice those of a call that was
  // quick.
  int64_t budget_ = 64;
  int64_t forwards_ = 0;
};

}  // namespace headcount
