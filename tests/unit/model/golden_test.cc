// The forward pass against what Hugging Face transformers computed. Set
// HEADCOUNT_GOLDEN_DIR to run it on other values of the same format.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/golden/model_golden.h"
#include "tests/unit/model/logits_rows.h"
#include "tests/unit/model/model_runner.h"
#include "tests/unit/model/reference_backend.h"

namespace headcount {
namespace {

// What was compared, and how far the furthest was off.
struct Tally {
  int64_t logits_rows = 0;
  int64_t logits = 0;
  int64_t logprobs = 0;
  int64_t greedy_tokens = 0;
  int64_t runs = 0;
  double worst = 0;

  void Print(const char* what) const {
    std::cout << "golden: " << what << ": " << runs << " runs, " << logits_rows
              << " logits rows (" << logits << " logits), " << logprobs
              << " log-probabilities, " << greedy_tokens
              << " greedy tokens; furthest " << worst << "\n";
  }
};

double LogSumExp(const LogitsRow& row) {
  const double highest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float logit : row) sum += std::exp(logit - highest);
  return highest + std::log(sum);
}

// Of ids[1:]; `rows` are the logits after each of ids.
std::vector<double> TokenLogprobs(const std::vector<LogitsRow>& rows,
                                  const std::vector<int32_t>& ids) {
  std::vector<double> logprobs;
  for (size_t i = 1; i < ids.size(); ++i) {
    logprobs.push_back(rows[i - 1][static_cast<size_t>(ids[i])] -
                       LogSumExp(rows[i - 1]));
  }
  return logprobs;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Changing each weight by one part in a million moves the logits of this badly
// hurt model by up to 0.014.
double ToleranceOf(const GoldenModel& model, const GoldenCase& golden) {
  return model.name == "mailroom" && golden.mask == "ragged30" ? 2e-2 : 2e-3;
}

void ExpectNear(double found, double golden, double tolerance, Tally* tally) {
  EXPECT_NEAR(found, golden, tolerance);
  tally->worst = std::max(tally->worst, std::fabs(found - golden));
}

// Greedy tokens, up to the first step that rounding may decide.
void ExpectGreedy(const GoldenCase& golden, double tolerance,
                  ModelRunner* runner, Tally* tally) {
  if (golden.greedy.empty()) return;
  const std::vector<int32_t> found =
      runner->Greedy(golden.ids, golden.greedy.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (golden.greedy_margins[i] < tolerance) return;
    EXPECT_EQ(found[i], golden.greedy[i]) << "greedy step " << i;
    ++tally->greedy_tokens;
    if (found[i] != golden.greedy[i]) return;
  }
}

void ExpectExact(const GoldenCase& golden, double tolerance,
                 ModelRunner* runner, Tally* tally) {
  const std::vector<LogitsRow> rows =
      runner->RunAlone(golden.ids, static_cast<int32_t>(golden.ids.size()));
  ++tally->runs;
  if (!golden.last_logits.empty()) {
    ASSERT_EQ(rows.back().size(), golden.last_logits.size());
    for (size_t i = 0; i < rows.back().size(); ++i) {
      ExpectNear(rows.back()[i], golden.last_logits[i], tolerance, tally);
    }
    ++tally->logits_rows;
    tally->logits += static_cast<int64_t>(rows.back().size());
  }
  for (const GoldenPosition& position : golden.positions) {
    const LogitsRow& row = rows[static_cast<size_t>(position.position)];
    for (size_t i = 0; i < position.top_ids.size(); ++i) {
      ExpectNear(row[static_cast<size_t>(position.top_ids[i])],
                 position.top_logits[i], tolerance, tally);
    }
    ExpectNear(LogSumExp(row), position.logsumexp, tolerance, tally);
    ++tally->logits_rows;
    tally->logits += static_cast<int64_t>(position.top_ids.size());
  }
  const std::vector<double> logprobs = TokenLogprobs(rows, golden.ids);
  for (size_t i = 0; i < golden.token_logprobs.size(); ++i) {
    // A log-probability is a difference of two values of that tolerance.
    ExpectNear(logprobs[i], golden.token_logprobs[i], 2 * tolerance, tally);
    ++tally->logprobs;
  }
  if (golden.mean_nll) {
    ExpectNear(-Mean(logprobs), *golden.mean_nll, tolerance, tally);
    ++tally->logprobs;
  }
  ExpectGreedy(golden, tolerance, runner, tally);
}

ModelRunner Load(Backend* backend, const GoldenModel& model,
                 const std::string& mask, KvDtype dtype) {
  return ModelRunner(backend, {.model = {.path = model.path,
                                         .mask = model.masks.at(mask),
                                         .kv_dtype = dtype}});
}

TEST(Golden, ExactLogitsAgreeWithTransformers) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  Tally tally;
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (const auto& [mask, heads] : model.masks) {
      ModelRunner runner = Load(backend.get(), model, mask, KvDtype::kF32);
      for (const GoldenCase& golden : model.cases) {
        if (golden.mask != mask) continue;
        SCOPED_TRACE(model.name + " " + golden.name);
        ExpectExact(golden, ToleranceOf(model, golden), &runner, &tally);
      }
    }
  }
  tally.Print("exact");
  EXPECT_GT(tally.logits_rows, 0);
}

// So that what the CPU backend is compared with is itself beyond doubt.
TEST(Golden, ReferenceBackendAgreesWithTransformers) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  Tally tally;
  for (const GoldenModel& model : ReadGoldenModels()) {
    if (model.name == "mailroom") continue;  // slow
    for (const auto& [mask, heads] : model.masks) {
      ModelRunner runner = Load(backend.get(), model, mask, KvDtype::kF32);
      for (const GoldenCase& golden : model.cases) {
        if (golden.mask != mask) continue;
        SCOPED_TRACE(model.name + " " + golden.name);
        ExpectExact(golden, ToleranceOf(model, golden), &runner, &tally);
      }
    }
  }
  tally.Print("reference");
}

// 4 % of the standard deviation of the exact run's logits, and 0.02 of its mean
// log-likelihood.
TEST(Golden, FastLogitsStayNearExactOnes) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  Tally tally;
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (const auto& [mask, heads] : model.masks) {
      ModelRunner exact = Load(backend.get(), model, mask, KvDtype::kF32);
      ModelRunner fast = Load(backend.get(), model, mask, KvDtype::kF16);
      for (const GoldenCase& golden : model.cases) {
        if (golden.mask != mask) continue;
        SCOPED_TRACE(model.name + " " + golden.name);
        const auto length = static_cast<int32_t>(golden.ids.size());
        const std::vector<LogitsRow> want = exact.RunAlone(golden.ids, length);
        const std::vector<LogitsRow> rows = fast.RunAlone(golden.ids, length);
        ++tally.runs;
        double smallest_deviation = INFINITY;
        for (size_t row = 0; row < rows.size(); ++row) {
          const double deviation = StandardDeviation(want[row]);
          smallest_deviation = std::min(smallest_deviation, deviation);
          double furthest = 0;
          for (size_t i = 0; i < rows[row].size(); ++i) {
            const double difference = rows[row][i] - want[row][i];
            furthest = std::max(furthest, std::fabs(difference));
          }
          EXPECT_LE(furthest, 0.04 * deviation) << "row " << row;
          tally.worst = std::max(tally.worst, furthest / deviation);
          tally.logits += static_cast<int64_t>(rows[row].size());
          ++tally.logits_rows;
        }
        if (length > 1) {
          EXPECT_NEAR(Mean(TokenLogprobs(rows, golden.ids)),
                      Mean(TokenLogprobs(want, golden.ids)), 0.02);
          ++tally.logprobs;
        }
        ExpectGreedy(golden, 0.04 * smallest_deviation, &fast, &tally);
      }
    }
  }
  tally.Print("fast (furthest in standard deviations)");
}

void ExpectSameBits(const std::vector<LogitsRow>& found,
                    const std::vector<LogitsRow>& alone, Tally* tally) {
  ASSERT_EQ(found.size(), alone.size());
  for (size_t row = 0; row < found.size(); ++row) {
    ASSERT_EQ(found[row].size(), alone[row].size());
    ASSERT_EQ(std::memcmp(found[row].data(), alone[row].data(),
                          found[row].size() * sizeof(float)),
              0)
        << "row " << row;
    ++tally->logits_rows;
    tally->logits += static_cast<int64_t>(found[row].size());
  }
  ++tally->runs;
}

TEST(Golden, LogitsHaveTheSameBitsInAnyChunksAndAnyCompany) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  Tally tally;
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (const auto& [mask, heads] : model.masks) {
      for (KvDtype dtype : {KvDtype::kF32, KvDtype::kF16}) {
        ModelRunner runner = Load(backend.get(), model, mask, dtype);
        std::vector<std::vector<int32_t>> prompts;
        std::vector<std::vector<LogitsRow>> alone;
        for (const GoldenCase& golden : model.cases) {
          if (golden.mask != mask) continue;
          SCOPED_TRACE(model.name + " " + golden.name);
          prompts.push_back(golden.ids);
          alone.push_back(runner.RunAlone(
              golden.ids, static_cast<int32_t>(golden.ids.size())));
          for (int32_t chunk : {1, 7, 16}) {
            ExpectSameBits(runner.RunAlone(golden.ids, chunk), alone.back(),
                           &tally);
          }
        }
        for (const std::vector<int32_t>& chunks :
             {std::vector<int32_t>{1, 7, 16, 3},
              std::vector<int32_t>{40, 33, 1, 64}}) {
          std::vector<int32_t> chunk_of(prompts.size());
          for (size_t i = 0; i < prompts.size(); ++i) {
            chunk_of[i] = chunks[i % chunks.size()];
          }
          const auto together = runner.RunTogether(prompts, chunk_of);
          for (size_t i = 0; i < prompts.size(); ++i) {
            SCOPED_TRACE(model.name + " " + mask + ", prompt " +
                         std::to_string(i) + " in company");
            ExpectSameBits(together[i], alone[i], &tally);
          }
        }
        EXPECT_EQ(runner.pool().bytes().used, 0);
        runner.pool().CheckInvariants();
      }
    }
  }
  tally.Print("same bits");
}

}  // namespace
}  // namespace headcount
