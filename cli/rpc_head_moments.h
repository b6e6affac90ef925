// What output projections are refit from, from a server's CalibrationService.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/client.h"
#include "cli/labelled_texts.h"
#include "cli/open_calls.h"
#include "prune/comparison.h"
#include "prune/output_refit.h"

namespace headcount {

// Of a layer with heads, over all texts but their first tokens.
struct LayerMoments {
  int layer = 0;
  // That ran, of the unpruned layer; `moments` are of their outputs, one after
  // the other.
  std::vector<int> query_heads;
  HeadMoments moments;
};

struct MomentsQuestion {
  std::string model;  // its name
  // With kLogprob, prompt and target are computed, else the text in the
  // template of the model's classification.
  const std::vector<LabelledText>* texts = nullptr;
  Metric metric = Metric::kKl;
  // Of the tokens only those where answers are computed.
  bool answers_only = false;
};

// By layer. `on_progress` gets the texts that are done. The same texts give the
// same bits, if the server computes on a CPU and for nobody else.
absl::StatusOr<std::vector<LayerMoments>> CollectMoments(
    const Client& client, OpenCalls* calls, const MomentsQuestion& question,
    const std::function<void(int64_t)>& on_progress);

}  // namespace headcount
