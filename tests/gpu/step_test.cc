// Whole steps of models on the device, beside the CPU backend and beside what
// Hugging Face transformers computed.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/matrix_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/model_golden.h"
#include "tests/gpu/device.h"
#include "tests/unit/model/model_runner.h"

namespace headcount::gpu {
namespace {

// Keys and values are rounded to 16 bits by both; a value that one of them
// rounds up and the other down moves a logit by about this.
constexpr double kTolerance = 2e-2;
constexpr size_t kPrompt = 27;  // tokens of a golden text, where it has more
constexpr size_t kShortPrompt = 9;  // of one with a real vocabulary
constexpr size_t kAnswer = 4;
constexpr int64_t kSteps = 1000;

// How far apart the two were, and how often tokens were the same.
struct Tally {
  int64_t runs = 0;
  int64_t logits = 0;
  int64_t tokens = 0;
  double worst = 0;

  void Print(const std::string& what) const {
    std::cout << "golden: cuda, " << what << ": " << runs << " runs, " << logits
              << " logits, " << tokens << " greedy tokens; furthest " << worst
              << "\n";
  }
};

class StepTest : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> cpu_ = CreateCpuBackend({});
  std::unique_ptr<Backend> cuda_ = cuda::CreateCudaBackend(OpenTestDevice());
};

// A prompt's rows are multiplied some at a time.
TEST_F(StepTest, ARowOfALongProductIsThatOfTheRowAlone) {
  constexpr int64_t kRows = 2100;
  constexpr int64_t kCols = 64;
  constexpr int64_t kOutputs = 24;
  std::vector<uint16_t> weights(kOutputs * kCols);
  for (size_t i = 0; i < weights.size(); ++i) {  // bf16, 1 to 2 and -2 to -1
    weights[i] = static_cast<uint16_t>(0x3F80 + i * 37 % 128 +
                                       (i % 3 == 0 ? 0x8000 : 0));
  }
  std::vector<float> x(kRows * kCols);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i * 7919 % 1000) / 499.5f - 1;
  }
  const MatrixSource source{
      .rows = kOutputs,
      .cols = kCols,
      .pieces = {{.data = reinterpret_cast<const std::byte*>(weights.data()),
                  .dtype = ElementType::kBf16,
                  .stride = kCols,
                  .rows = kOutputs,
                  .cols = kCols}}};
  const std::unique_ptr<Matrix> matrix =
      cuda_->Pack(source, Precision::kFast).value();
  const DeviceArray<float> device_x(x);
  const auto multiply = [&](int64_t first, int64_t rows) {
    const DeviceArray<float> out(static_cast<size_t>(rows * kOutputs));
    cuda_->MatMul(*matrix, device_x.data() + first * kCols, rows, nullptr,
                  Backend::MatMulMode::kStore, out.data());
    std::vector<float> values(static_cast<size_t>(rows * kOutputs));
    cuda_->CopyToHost(out.data(),
                      static_cast<int64_t>(values.size() * sizeof(float)),
                      values.data());
    return values;
  };
  const std::vector<float> all = multiply(0, kRows);
  for (const int64_t row : {0, 1, 511, 1023, 1024, 1500, 2047, 2048, 2099}) {
    const auto begin = all.begin() + row * kOutputs;
    EXPECT_EQ(std::vector<float>(begin, begin + kOutputs), multiply(row, 1))
        << row;
  }
}

void ExpectNear(const std::vector<LogitsRow>& found,
                const std::vector<LogitsRow>& expected, double tolerance,
                Tally* tally) {
  ASSERT_EQ(found.size(), expected.size());
  double worst = 0;
  for (size_t row = 0; row < found.size(); ++row) {
    ASSERT_EQ(found[row].size(), expected[row].size());
    for (size_t i = 0; i < found[row].size(); ++i) {
      const double error = std::fabs(double{found[row][i]} - expected[row][i]);
      worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
    }
    tally->logits += static_cast<int64_t>(found[row].size());
  }
  EXPECT_LE(worst, tolerance);
  tally->worst = std::max(tally->worst, worst);
  ++tally->runs;
}

// The tokens that the CPU backend finds clearly best.
void ExpectGreedy(absl::Span<const int32_t> ids, ModelRunner* cpu,
                  ModelRunner* cuda, Tally* tally) {
  std::vector<int32_t> all(ids.begin(), ids.end());
  const std::vector<int32_t> found = cuda->Greedy(ids, kAnswer);
  for (const int32_t token : found) {
    LogitsRow row = cpu->RunAlone(all, static_cast<int32_t>(all.size())).back();
    const auto best = std::max_element(row.begin(), row.end());
    const auto expected = static_cast<int32_t>(best - row.begin());
    std::nth_element(row.begin(), row.begin() + 1, row.end(), std::greater<>());
    if (row[0] - row[1] < 2 * kTolerance) return;
    ASSERT_EQ(token, expected) << "after " << all.size() << " tokens";
    ++tally->tokens;
    all.push_back(token);
  }
}

std::vector<int32_t> PromptOf(const GoldenModel& model,
                              const std::string& mask) {
  const size_t most = model.name == "mailroom" ? kShortPrompt : kPrompt;
  for (const GoldenCase& golden : model.cases) {
    if (golden.mask != mask) continue;
    const size_t tokens = std::min(golden.ids.size(), most);
    return {golden.ids.begin(),
            golden.ids.begin() + static_cast<std::ptrdiff_t>(tokens)};
  }
  return {};
}

ModelRunnerOptions OptionsFor(const GoldenModel& model, const std::string& mask,
                              KvDtype dtype) {
  return {.model = {.path = model.path,
                    .mask = model.masks.at(mask),
                    .kv_dtype = dtype,
                    .precision = Precision::kExact},
          .pool_tokens = 512};
}

TEST_F(StepTest, GoldenModelsWithEveryMaskAreAsOnTheCpu) {
  int64_t total = 0;
  for (const GoldenModel& model : ReadGoldenModels()) {
    Tally tally;
    for (const auto& [mask, heads] : model.masks) {
      SCOPED_TRACE(absl::StrCat(model.name, " ", mask));
      const std::vector<int32_t> ids = PromptOf(model, mask);
      if (ids.empty()) continue;
      const ModelRunnerOptions options = OptionsFor(model, mask, KvDtype::kF16);
      ModelRunner cpu(cpu_.get(), options);
      if (!cuda_->CheckHeads(cpu.model().config().head_dim, KvDtype::kF16)
               .ok()) {
        continue;
      }
      ModelRunner cuda(cuda_.get(), options);
      // A chunk that ends inside of a page, then the rest.
      const auto chunk = static_cast<int32_t>((ids.size() * 5 + 5) / 6);
      ExpectNear(cuda.RunAlone(ids, chunk), cpu.RunAlone(ids, chunk),
                 kTolerance, &tally);
      ExpectGreedy(ids, &cpu, &cuda, &tally);
    }
    tally.Print(model.name);
    total += tally.tokens;
  }
  // On a GPU mailroom alone has heads of a size that there are kernels for.
  EXPECT_GT(total, IsEmulator() ? 100 : 10);
}

const GoldenModel& Named(const std::vector<GoldenModel>& models,
                         const std::string& name) {
  const auto found = std::find_if(
      models.begin(), models.end(),
      [&](const GoldenModel& model) { return model.name == name; });
  CHECK(found != models.end()) << name;
  return *found;
}

// Prompts and decoding sequences in one step, each of another mask of the same
// weights, and pages of every dtype, two in one layer among them.
TEST_F(StepTest, VariantsInOneStepAreAsOnTheCpuInEveryDtype) {
  struct Stored {
    const char* model;
    KvDtype dtype;
    KvHeadRules heads;
    double tolerance;
  };
  // A value that falls on the other side of a code moves logits the more, the
  // coarser codes are.
  const std::vector<Stored> cases = {
      {"mailroom", KvDtype::kF16, {}, kTolerance},
      {"llama_gqa", KvDtype::kBf16, {}, 0.1},
      {"mailroom", KvDtype::kFp8E4m3, {}, 0.2},
      {"mailroom",
       KvDtype::kInt8,
       {{1, {{0, {KvDtype::kF16}}, {2, {KvDtype::kFp8E4m3}}}}},
       0.1},
      {"mailroom",
       KvDtype::kF16,
       {{1, {{0, {.retention = Retention{.window = 24, .sink = 16}}}}}},
       kTolerance},
      {"mailroom", KvDtype::kInt4, {}, 0.3}};
  const std::vector<GoldenModel> models = ReadGoldenModels();
  for (const Stored& stored : cases) {
    const GoldenModel& model = Named(models, stored.model);
    if (!IsEmulator() && model.name != "mailroom") continue;
    Tally tally;
    const auto run = [&](Backend* backend) {
      ModelRunner runner(backend, {.model = {.path = model.path,
                                             .kv_dtype = stored.dtype,
                                             .kv_head_rules = stored.heads,
                                             .precision = Precision::kExact},
                                   .pool_tokens = 512});
      std::vector<std::vector<int32_t>> prompts;
      std::vector<size_t> variants;
      std::vector<int32_t> chunks;
      for (const auto& [mask, heads] : model.masks) {
        variants.push_back(runner.AddVariant({.mask = heads,
                                              .kv_dtype = stored.dtype,
                                              .kv_head_rules = stored.heads}));
        std::vector<int32_t> ids = PromptOf(model, mask);
        ids.resize(2 + 2 * prompts.size());
        prompts.push_back(std::move(ids));
        chunks.push_back(
            std::vector<int32_t>{1, 20, 3, 11}[prompts.size() % 4]);
      }
      std::vector<LogitsRow> rows;
      for (std::vector<LogitsRow>& of_one :
           runner.RunTogether(prompts, chunks, variants)) {
        for (LogitsRow& row : of_one) rows.push_back(std::move(row));
      }
      return rows;
    };
    ExpectNear(run(cuda_.get()), run(cpu_.get()), stored.tolerance, &tally);
    tally.Print(std::string(KvDtypeName(stored.dtype)));
  }
}

TEST_F(StepTest, GatesAreAsOnTheCpu) {
  const std::vector<GoldenModel> models = ReadGoldenModels();
  const GoldenModel& model = Named(models, "mailroom");
  Tally tally;
  const auto run = [&](Backend* backend) {
    ModelRunner runner(backend, OptionsFor(model, "dense", KvDtype::kF16));
    ModelRunner::Sequence gated;
    ModelRunner::Sequence plain;
    for (int64_t i = 0; i < runner.model().layout().dense_query_heads(); ++i) {
      gated.gates.push_back(static_cast<float>(i * 3 % 5) / 4);
    }
    const std::vector<int32_t> ids = PromptOf(model, "dense");
    const auto rows = static_cast<int32_t>(ids.size());
    return runner.Step({{&plain, ids, rows}, {&gated, ids, rows}});
  };
  const std::vector<LogitsRow> found = run(cuda_.get());
  ExpectNear(found, run(cpu_.get()), kTolerance, &tally);
  EXPECT_NE(found.front(), found[found.size() / 2]);
  tally.Print("gates");
}

TEST_F(StepTest, StepsAllocateNothingOnceTheyHaveGrown) {
  if (!IsEmulator()) GTEST_SKIP() << "the emulator counts";
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenTestDevice(/*launches=*/false));
  const std::vector<GoldenModel> models = ReadGoldenModels();
  const GoldenModel& model = Named(models, "llama_mqa");
  ModelRunner runner(backend.get(), OptionsFor(model, "dense", KvDtype::kF16));
  std::vector<int32_t> ids(20);
  std::iota(ids.begin(), ids.end(), 1);
  int64_t steps = 0;
  const auto serve_one = [&] {
    ModelRunner::Sequence sequence;
    const auto prompt = absl::MakeConstSpan(ids);
    runner.Step({{&sequence, prompt, 1}});
    ++steps;
    for (int token = 0; token < 10; ++token) {
      runner.Step({{&sequence, prompt.first(1), 1}});
      ++steps;
    }
  };
  serve_one();
  steps = 0;
  const int64_t before = TestAllocations();
  while (steps < kSteps) serve_one();
  EXPECT_EQ(TestAllocations(), before);
}

// After the first token only the tables of a step grow, here and there.
TEST_F(StepTest, WhatALongPromptNeedsIsReservedBeforeIt) {
  if (!IsEmulator()) GTEST_SKIP() << "the emulator counts";
  constexpr int32_t kLongest = 256;
  const std::vector<GoldenModel> models = ReadGoldenModels();
  const GoldenModel& model = Named(models, "mailroom");
  for (const KvHeadRules& rules :
       {KvHeadRules{},
        {{1, {{0, {.retention = Retention{.window = 24, .sink = 16}}}}}}}) {
    const std::unique_ptr<Backend> backend =
        cuda::CreateCudaBackend(OpenTestDevice(/*launches=*/false));
    ModelRunner runner(backend.get(),
                       {.model = {.path = model.path, .kv_head_rules = rules},
                        .pool_tokens = 2 * kLongest});
    ASSERT_TRUE(runner.ReserveSteps(kLongest).ok());
    runner.RunAlone({1}, 1);
    const int64_t before = TestAllocations();
    std::vector<int32_t> ids(kLongest);
    std::iota(ids.begin(), ids.end(), 1);
    runner.RunAlone(ids, kLongest);
    EXPECT_LE(TestAllocations(), before + 2);
  }
}

TEST_F(StepTest, RefusesHeadsThatHaveNoKernel) {
  const std::vector<GoldenModel> models = ReadGoldenModels();
  const auto status_of = [&](const char* name, KvDtype dtype) {
    return Model::Load({.path = Named(models, name).path, .kv_dtype = dtype},
                       cuda_.get())
        .status();
  };
  EXPECT_THAT(std::string(status_of("qwen2", KvDtype::kF16).message()),
              ::testing::HasSubstr("heads of 24 elements in f16"));
  EXPECT_THAT(
      std::string(status_of("mailroom", KvDtype::kF32).message()),
      ::testing::HasSubstr("in f32; serve the model with --device cpu"));
}

}  // namespace
}  // namespace headcount::gpu
