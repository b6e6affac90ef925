#include "server/classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace headcount {

std::vector<double> NormalisedLogprobs(absl::Span<const double> logprobs) {
  CHECK(!logprobs.empty());
  const double highest = *std::max_element(logprobs.begin(), logprobs.end());
  double sum = 0;
  for (const double logprob : logprobs) sum += std::exp(logprob - highest);
  const double log_sum = highest + std::log(sum);
  std::vector<double> normalised;
  for (const double logprob : logprobs) normalised.push_back(logprob - log_sum);
  return normalised;
}

v1::Classification Classify(const ClassifySetup& setup,
                            absl::Span<const double> logprobs,
                            int32_t prompt_tokens) {
  CHECK(logprobs.size() == setup.labels.size() && !logprobs.empty());
  std::vector<size_t> order(logprobs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [logprobs](size_t a, size_t b) {
    return logprobs[a] > logprobs[b];
  });
  const std::vector<double> normalised = NormalisedLogprobs(logprobs);

  v1::Classification result;
  result.set_label(setup.labels[order[0]].text);
  result.set_prompt_tokens(prompt_tokens);
  for (const size_t i : order) {
    v1::LabelProbability* label = result.add_labels();
    label->set_label(setup.labels[i].text);
    label->set_probability(static_cast<float>(std::exp(normalised[i])));
    label->set_logprob(static_cast<float>(logprobs[i]));
  }
  return result;
}

}  // namespace headcount
