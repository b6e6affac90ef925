// Tokens that the device draws, against those that the host draws.
#include "backend/cuda/sampling_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cuda/sample_batch.h"
#include "backend/sampling.h"
#include "gtest/gtest.h"
#include "tests/gpu/device.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount::gpu {
namespace {

using cuda::DeviceSampleResult;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A row of logits and what is asked of it; `row` has spans of the vectors.
struct Request {
  std::vector<float> logits = {};
  std::vector<TokenUse> uses = {};
  std::vector<TokenBias> biases = {};
  std::vector<int32_t> allowed = {};
  std::vector<int32_t> banned = {};
  SampleRow row = {};

  SampleRow Row(int32_t logits_row) const {
    SampleRow out = row;
    out.logits_row = logits_row;
    out.uses = uses;
    out.biases = biases;
    out.allowed = allowed;
    out.banned = banned;
    return out;
  }
};

// Of requests over one vocabulary.
std::vector<DeviceSampleResult> Draw(const std::vector<Request>& requests) {
  std::vector<float> logits;
  cuda::SampleBatch batch;
  const size_t vocab = requests.front().logits.size();
  for (size_t i = 0; i < requests.size(); ++i) {
    logits.insert(logits.end(), requests[i].logits.begin(),
                  requests[i].logits.end());
    AddRow(requests[i].Row(static_cast<int32_t>(i)),
           static_cast<int64_t>(vocab), &batch);
  }
  // No array is empty.
  batch.uses.emplace_back();
  batch.biases.emplace_back();
  batch.allowed.emplace_back();
  batch.banned.emplace_back();
  const DeviceArray<float> device_logits(logits);
  const DeviceArray<cuda::DeviceSampleRow> rows(batch.rows);
  const DeviceArray<TokenUse> uses(batch.uses);
  const DeviceArray<TokenBias> biases(batch.biases);
  const DeviceArray<int32_t> allowed(batch.allowed);
  const DeviceArray<int32_t> banned(batch.banned);
  const DeviceArray<float> scratch(logits.size());
  const DeviceArray<DeviceSampleResult> results(requests.size());
  const auto kernel = cuda::FindSampleKernel();
  Launch(kernel.kernel, static_cast<int>(requests.size()), kernel.threads,
         kernel.shared_bytes,
         cuda::SampleParams{.logits = device_logits.data(),
                            .rows = rows.data(),
                            .uses = uses.data(),
                            .biases = biases.data(),
                            .allowed = allowed.data(),
                            .banned = banned.data(),
                            .scratch = scratch.data(),
                            .results = results.data(),
                            .vocab = static_cast<int32_t>(vocab)});
  return results.Read();
}

std::string Describe(const Request& request) {
  const SampleRow& row = request.row;
  return absl::StrCat(
      "vocab ", request.logits.size(), ", temperature ", row.temperature,
      ", top_k ", row.top_k, ", top_p ", row.top_p, ", min_p ", row.min_p,
      ", seed ", row.seed, ", ", request.uses.size(), " uses, ",
      request.biases.size(), " biases, ", request.allowed.size(), " allowed, ",
      request.banned.size(), " banned");
}

void ExpectHostDrawsTheSame(const std::vector<Request>& requests) {
  const std::vector<DeviceSampleResult> results = Draw(requests);
  SampleScratch scratch;
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("row ", i, ": ", Describe(requests[i])));
    const SampleResult expected =
        SampleOne(requests[i].logits, requests[i].Row(0), &scratch);
    EXPECT_EQ(results[i].finite != 0, expected.finite);
    ASSERT_EQ(results[i].token, expected.token);
    EXPECT_NEAR(results[i].logprob, expected.logprob,
                2e-6f * std::max(1.0f, std::abs(expected.logprob)));
  }
}

// Rising tokens, about one in `every`.
std::vector<int32_t> SomeTokens(TestRandom& random, size_t vocab, int every) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < vocab; ++i) {
    if (RandomInt(random, 1, every) == 1) {
      tokens.push_back(static_cast<int32_t>(i));
    }
  }
  return tokens;
}

// Every filter is there in half of the rows or fewer. A third of all logits are
// of few values, so that many are equal.
Request RandomRequest(TestRandom& random, int vocab) {
  const auto one_in = [&](int n) { return RandomInt(random, 1, n) == 1; };
  Request request;
  const float spread = static_cast<float>(RandomInt(random, 1, 12));
  const bool coarse = one_in(3);
  for (const float value : RandomFloats(random, vocab)) {
    const float logit = value * spread + value * value * value * spread;
    request.logits.push_back(coarse ? std::round(logit) : logit);
  }
  SampleRow& row = request.row;
  row.seed = random();
  row.position = random();
  row.temperature =
      one_in(8) ? 0.0f : 0.05f * static_cast<float>(RandomInt(random, 1, 40));
  if (one_in(2)) row.top_k = RandomInt(random, 1, one_in(2) ? 40 : 2 * vocab);
  if (one_in(2)) row.top_p = RandomFloat(random) * 0.5f + 0.5f;
  if (one_in(3)) row.min_p = 0.1f * RandomFloat(random) + 0.1f;
  if (one_in(3)) {
    row.repetition_penalty = 1.3f;
    row.frequency_penalty = 0.37f;
    row.presence_penalty = 0.11f;
    for (const int32_t token : SomeTokens(random, request.logits.size(), 5)) {
      request.uses.push_back({token, RandomInt(random, 0, 3)});
    }
  }
  if (one_in(4)) {
    for (const int32_t token : SomeTokens(random, request.logits.size(), 7)) {
      const float bias = one_in(4) ? -kInfinity : 5 * RandomFloat(random);
      request.biases.push_back({token, bias});
    }
  }
  if (one_in(5)) {
    request.allowed = SomeTokens(random, request.logits.size(), 3);
  }
  if (one_in(4)) {
    request.banned = SomeTokens(random, request.logits.size(), 3);
    std::reverse(request.banned.begin(), request.banned.end());
  }
  return request;
}

TEST(SampleKernelTest, DrawsWhatTheHostDraws) {
  TestRandom random(1);
  struct Size {
    int vocab, rows;
  };
  for (const Size size :
       {Size{1, 3}, Size{64, 60}, Size{777, 60}, Size{3000, 20}}) {
    std::vector<Request> requests;
    for (int i = 0; i < size.rows; ++i) {
      requests.push_back(RandomRequest(random, size.vocab));
    }
    ExpectHostDrawsTheSame(requests);
  }
}

TEST(SampleKernelTest, SaysWhereLogitsAreNotFinite) {
  const std::vector<float> fine(100, 1.0f);
  std::vector<Request> requests(5, Request{.logits = fine});
  requests[1].logits[50] = kNan;
  requests[2].logits[99] = kInfinity;
  std::fill(requests[3].logits.begin(), requests[3].logits.end(), -kInfinity);
  requests[4].logits[0] = -kInfinity;  // the only one, which is fine
  const std::vector<DeviceSampleResult> results = Draw(requests);
  EXPECT_EQ(results[0].finite, 1);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(results[i].finite, 0) << i;
    EXPECT_EQ(results[i].token, -1) << i;
  }
  ExpectHostDrawsTheSame(requests);
}

// All, none and one of the tokens left; equal ones around every filter's edge.
TEST(SampleKernelTest, AgreesAtTheEdges) {
  Request flat{.logits = std::vector<float>(600, 0.25f)};
  flat.row.temperature = 0.7f;
  flat.logits[7] = -0.0f;
  flat.logits[8] = 0.0f;
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    flat.row.seed = seed;
    for (const int32_t top_k : {1, 2, 512, 513, 598, 599, 600, 601}) {
      requests.push_back(flat);
      requests.back().row.top_k = top_k;
    }
    for (const float top_p : {0.0f, 1e-6f, 0.5f, 0.99999994f}) {
      requests.push_back(flat);
      requests.back().row.top_p = top_p;
    }
    requests.push_back(flat);
    requests.back().row.min_p = 1.0f;
  }
  Request none = flat;
  for (int32_t i = 0; i < 600; ++i) none.banned.push_back(i);
  requests.push_back(none);
  none.row.temperature = 0;
  requests.push_back(none);
  Request one = flat;
  one.allowed = {599};
  one.row.top_p = 0.3f;
  one.row.top_k = 4;
  requests.push_back(one);
  // Logits so far apart that all but one weigh nothing.
  Request steep = flat;
  steep.logits[300] = 1e30f;
  steep.row.top_k = 50;
  steep.row.top_p = 0.9f;
  requests.push_back(steep);
  ExpectHostDrawsTheSame(requests);
  EXPECT_EQ(Draw({none}).front().token, -1);
  EXPECT_EQ(Draw({one}).front().token, 599);
}

TEST(SampleBatchTest, OnlyTokensAreDrawnOnTheDevice) {
  std::vector<float> values(3);
  const std::vector<int32_t> tokens = {1};
  SampleRow plain;
  plain.temperature = 1;
  plain.top_k = 3;
  plain.allowed = tokens;
  EXPECT_TRUE(cuda::IsDrawnOnDevice(plain));
  std::vector<SampleRow> others(4, plain);
  others[0].top_logprobs = 1;
  others[1].scored = tokens;
  others[2].kept = absl::MakeSpan(values);
  others[3].reference = values;
  for (const SampleRow& row : others) {
    EXPECT_FALSE(cuda::IsDrawnOnDevice(row));
  }
}

}  // namespace
}  // namespace headcount::gpu
