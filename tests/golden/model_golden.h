// What Hugging Face transformers computed for models under head masks:
// arithmetic in float32, pruned heads by zeroed context vectors.
//
//   <directory>/tiny/<name>/    config.json, weights, expected.json[.gz]
//   <directory>/mailroom/logits.json[.gz]  (or mailroom_logits.json.gz)
//   <directory>/smollm2-135m/logits.json[.gz]  (or smollm2_135m_logits.json.gz)
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "heads/head_mask.h"

namespace headcount {

// The highest logits at one position of a prompt.
struct GoldenPosition {
  int64_t position = 0;
  std::vector<int32_t> top_ids;
  std::vector<double> top_logits;
  double logsumexp = 0;
};

// One prompt under one mask. What a file does not hold is empty.
struct GoldenCase {
  std::string name;
  std::string mask;
  std::vector<int32_t> ids;
  std::vector<double> last_logits;     // [vocab]
  std::vector<double> token_logprobs;  // of ids[1:]
  std::vector<GoldenPosition> positions;
  std::optional<double> mean_nll;      // of ids[1:]
  std::vector<int32_t> greedy;         // tokens that follow
  std::vector<double> greedy_margins;  // [greedy] best less second logit
};

struct GoldenModel {
  std::string name;
  std::string path;  // of the model; empty: it is not part of the project
  std::map<std::string, HeadMask> masks;
  std::vector<GoldenCase> cases;
};

// Of $HEADCOUNT_GOLDEN_DIR, or else of tests/data/golden. Aborts if there are
// none: a test without its data has nothing to say.
std::vector<GoldenModel> ReadGoldenModels();

// The same of SmolLM2-135M-Instruct in its Q4_1 GGUF file, dequantised.
GoldenModel ReadSmolLm2Golden();

}  // namespace headcount
