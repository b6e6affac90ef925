// Steps that go out as graphs, beside the same steps launch by launch: the bits
// are the same, and a graph that is not what the step launches would show.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/graph_device.h"
#include "backend/cuda/row_kernels.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/head_statistics.h"
#include "tests/golden/model_golden.h"
#include "tests/gpu/device.h"
#include "tests/unit/model/model_runner.h"

namespace headcount::gpu {
namespace {

using ::testing::ElementsAre;

// What its graphs do when they are to take other arguments.
enum class Replacing { kDoes, kForgets, kCannot };

class EditedGraph final : public cuda::Graph {
 public:
  EditedGraph(std::unique_ptr<cuda::Graph> graph, Replacing replacing)
      : graph_(std::move(graph)), replacing_(replacing) {}

  bool SetParams(size_t index, const cuda::LaunchCall& call) override {
    if (replacing_ == Replacing::kDoes) return graph_->SetParams(index, call);
    return replacing_ == Replacing::kForgets;
  }
  void Launch() override { graph_->Launch(); }

 private:
  const std::unique_ptr<cuda::Graph> graph_;
  const Replacing replacing_;
};

struct Graphs {
  bool can_make = true;
  Replacing replacing = Replacing::kDoes;
};

class EditedDevice final : public cuda::ForwardingDevice {
 public:
  explicit EditedDevice(Graphs graphs)
      : ForwardingDevice(&TheDevice()), graphs_(graphs) {}

  std::unique_ptr<cuda::Graph> MakeGraph(
      absl::Span<const cuda::LaunchCall> calls) override {
    ++tried_;
    if (!graphs_.can_make) return nullptr;
    return std::make_unique<EditedGraph>(device_.MakeGraph(calls),
                                         graphs_.replacing);
  }

  int tried() const { return tried_; }

 private:
  const Graphs graphs_;
  int tried_ = 0;
};

// A step of launches, each of which copies the number that it is told, 10 and
// up, to a place of its own.
class GraphDeviceTest : public ::testing::Test {
 protected:
  static constexpr size_t kLaunches = 8;

  void UseDevice(Graphs graphs) {
    real_ = std::make_unique<EditedDevice>(graphs);
    device_ = std::make_unique<cuda::GraphDevice>(real_.get());
  }
  void SetUp() override { UseDevice({}); }

  // What `which` tells each launch to copy; and what came out.
  std::vector<float> Step(const std::vector<int>& which) {
    device_->Zero(out_.data(), kLaunches * sizeof(float));
    device_->BeginStep(/*hold=*/true);
    for (size_t i = 0; i < which.size(); ++i) Copy(which[i], i);
    device_->EndStep();
    device_->Synchronize();
    std::vector<float> out = out_.Read();
    out.resize(which.size());
    return out;
  }

  void Copy(int which, size_t to) {
    device_->Launch(cuda::FindGatherRowsKernel(), 1,
                    cuda::GatherRowsParams{.x = numbers_.data() + which,
                                           .indices = zero_.data(),
                                           .out = out_.data() + to,
                                           .rows = 1,
                                           .cols = 1});
  }

  // Replayed, updated, built, direct.
  std::vector<int64_t> Counts() const {
    const StepGraphs graphs = device_->step_graphs();
    return {graphs.replayed, graphs.updated, graphs.built, graphs.direct};
  }

  static std::vector<float> Numbers() {
    std::vector<float> numbers(2 * cuda::GraphDevice::kMaxGraphs);
    std::iota(numbers.begin(), numbers.end(), 10.0f);
    return numbers;
  }

  DeviceArray<float> numbers_{Numbers()};
  DeviceArray<int32_t> zero_{std::vector<int32_t>{0}};
  DeviceArray<float> out_{kLaunches};
  std::unique_ptr<EditedDevice> real_;
  std::unique_ptr<cuda::GraphDevice> device_;
};

TEST_F(GraphDeviceTest, BuildsWhatComesAgainAndReplaysItFromThenOn) {
  const std::vector<int> which = {0, 1, 2, 3, 0, 1, 2, 3};
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(Step(which), ElementsAre(10, 11, 12, 13, 10, 11, 12, 13));
  }
  EXPECT_THAT(Counts(), ElementsAre(3, 0, 1, 1));
}

TEST_F(GraphDeviceTest, ReplacesFewArgumentsAndKeepsTheOthers) {
  for (int i = 0; i < 2; ++i) Step({0, 1, 2, 3, 0, 1, 2, 3});
  EXPECT_THAT(Step({0, 1, 2, 3, 0, 1, 3, 2}),
              ElementsAre(10, 11, 12, 13, 10, 11, 13, 12));
  EXPECT_THAT(Counts(), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(Step({0, 1, 2, 3, 0, 1, 3, 2}),
              ElementsAre(10, 11, 12, 13, 10, 11, 13, 12));
  EXPECT_THAT(Counts(), ElementsAre(1, 1, 1, 1));
  // What was before comes again, and gets a graph of its own.
  EXPECT_THAT(Step({0, 1, 2, 3, 0, 1, 2, 3}),
              ElementsAre(10, 11, 12, 13, 10, 11, 12, 13));
  EXPECT_THAT(Counts(), ElementsAre(1, 1, 2, 1));
}

TEST_F(GraphDeviceTest, DoesNotReplaceMany) {
  for (int i = 0; i < 2; ++i) Step({0, 1, 2, 3, 0, 1, 2, 3});
  EXPECT_THAT(Step({0, 1, 2, 3, 0, 2, 3, 2}),
              ElementsAre(10, 11, 12, 13, 10, 12, 13, 12));
  EXPECT_THAT(Counts(), ElementsAre(0, 0, 1, 2));
}

TEST_F(GraphDeviceTest, StepsOfOtherLengthsDoNotMeet) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Step({0, 1, 2}), ElementsAre(10, 11, 12));
    EXPECT_THAT(Step({0, 1, 2, 3}), ElementsAre(10, 11, 12, 13));
  }
  EXPECT_THAT(Counts(), ElementsAre(2, 0, 2, 2));
}

// Proves that the tests here would see one.
TEST_F(GraphDeviceTest, AGraphWhoseArgumentsAreStaleShows) {
  UseDevice({.replacing = Replacing::kForgets});
  for (int i = 0; i < 2; ++i) Step({0, 1, 2, 3, 0, 1, 2, 3});
  EXPECT_THAT(Step({0, 1, 2, 3, 0, 1, 3, 2}),
              ElementsAre(10, 11, 12, 13, 10, 11, 12, 13));
}

TEST_F(GraphDeviceTest, LaunchesDirectlyWhatCannotBeAGraph) {
  UseDevice({.can_make = false});
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Step({3, 2, 1}), ElementsAre(13, 12, 11));
  }
  EXPECT_THAT(Counts(), ElementsAre(0, 0, 0, 3));
  // Not for ever: each try costs more than the launches.
  for (int i = 0; i < 9; ++i) Step({3, 2, 1});
  EXPECT_EQ(real_->tried(), cuda::GraphDevice::kMaxFailures);

  UseDevice({.replacing = Replacing::kCannot});
  for (int i = 0; i < 2; ++i) Step({0, 1, 2, 3, 0, 1, 2, 3});
  EXPECT_THAT(Step({0, 1, 2, 3, 0, 1, 3, 2}),
              ElementsAre(10, 11, 12, 13, 10, 11, 13, 12));
  EXPECT_THAT(Counts(), ElementsAre(0, 0, 1, 2));
}

TEST_F(GraphDeviceTest, ForgetsTheGraphThatWasUsedLeastRecently) {
  // Too short for an argument to be replaced.
  const auto numbered = [](size_t i) {
    return std::vector<int>{static_cast<int>(i)};
  };
  const size_t most = cuda::GraphDevice::kMaxGraphs;
  for (size_t i = 0; i < most; ++i) {
    for (int twice = 0; twice < 2; ++twice) Step(numbered(i));
  }
  const auto built = static_cast<int64_t>(most);
  Step(numbered(0));
  ASSERT_EQ(device_->step_graphs().replayed, 1);
  ASSERT_EQ(device_->step_graphs().built, built);
  // One more, in the place of number 1.
  for (int twice = 0; twice < 2; ++twice) Step(numbered(most));
  ASSERT_EQ(device_->step_graphs().built, built + 1);
  Step(numbered(0));
  EXPECT_EQ(device_->step_graphs().replayed, 2);
  Step(numbered(1));
  EXPECT_EQ(device_->step_graphs().replayed, 2);
}

TEST_F(GraphDeviceTest, WhatIsNotALaunchComesInItsPlace) {
  for (int i = 0; i < 4; ++i) {
    device_->BeginStep(/*hold=*/true);
    Copy(0, 0);
    Copy(1, 1);
    float seen[2] = {};
    device_->Download(out_.data(), sizeof(seen), seen);
    device_->Synchronize();
    EXPECT_THAT(seen, ElementsAre(10, 11));
    device_->Zero(out_.data(), sizeof(float));
    Copy(2, 1);
    const float other = 7;
    device_->Upload(&other, sizeof(other), out_.data() + 1);
    device_->EndStep();
    device_->Synchronize();
    const std::vector<float> out = out_.Read();
    EXPECT_THAT((std::vector<float>(out.begin(), out.begin() + 2)),
                ElementsAre(0, 7));
  }
  EXPECT_THAT(Counts(), ElementsAre(2, 0, 1, 1));
}

// Of the model with a mask, or with the last one that it has.
ModelRunnerOptions OptionsOf(const std::string& mask) {
  const std::vector<GoldenModel> models = ReadGoldenModels();
  // On a GPU mailroom alone has heads of a size that there are kernels for.
  const char* const name = IsEmulator() ? "llama_gqa" : "mailroom";
  const auto model = std::find_if(
      models.begin(), models.end(),
      [&](const GoldenModel& golden) { return golden.name == name; });
  CHECK(model != models.end()) << name;
  auto heads = model->masks.find(mask);
  if (heads == model->masks.end()) heads = std::prev(model->masks.end());
  return {.model = {.path = model->path, .mask = heads->second},
          .pool_tokens = 2048};
}

// Sequences of two models that decode in turns, over block borders: of variants
// and with gates, some of which come later or end sooner. The rows of all
// steps.
std::vector<LogitsRow> Serve(Backend* backend) {
  ModelRunner dense(backend, OptionsOf("dense"));
  ModelRunner pruned(backend, OptionsOf("pruned"));
  const size_t variant =
      dense.AddVariant({.mask = OptionsOf("pruned").model.mask});
  std::vector<int32_t> ids(250);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(i % 40) + 3;
  std::vector<LogitsRow> all;
  const auto step = [&](ModelRunner* runner,
                        const std::vector<ModelRunner::Feed>& feeds) {
    for (LogitsRow& row : runner->Step(feeds)) all.push_back(std::move(row));
  };
  ModelRunner::Sequence plain;
  ModelRunner::Sequence of_variant{.variant = variant};
  ModelRunner::Sequence gated;
  for (int64_t i = 0; i < dense.model().layout().dense_query_heads(); ++i) {
    gated.gates.push_back(static_cast<float>(i * 3 % 5) / 4);
  }
  ModelRunner::Sequence of_pruned;
  const auto prompt = absl::MakeConstSpan(ids);
  ModelRunner::Sequence longer;
  step(&dense,
       {{&plain, prompt.first(13), 1}, {&of_variant, prompt.first(40), 1}});
  step(&dense, {{&longer, prompt, 1}});
  step(&pruned, {{&of_pruned, prompt.first(7), 1}});
  for (size_t i = 0; i < 40; ++i) {
    const auto token = prompt.subspan(i, 1);
    step(&pruned, {{&of_pruned, token, 1}});
    if (i < 20) step(&dense, {{&longer, token, 1}});
    std::vector<ModelRunner::Feed> feeds = {{&plain, token, 1}};
    if (i < 30) feeds.push_back({&of_variant, token, 1});
    if (i >= 15) feeds.push_back({&gated, token, 1});
    step(&dense, feeds);
  }
  return all;
}

TEST(GraphStepTest, StepsHaveTheBitsOfDirectLaunches) {
  const std::unique_ptr<Backend> graphs =
      cuda::CreateCudaBackend(std::make_unique<EditedDevice>(Graphs{}));
  const std::unique_ptr<Backend> direct = cuda::CreateCudaBackend(
      std::make_unique<EditedDevice>(Graphs{.can_make = false}));
  const std::vector<LogitsRow> found = Serve(graphs.get());
  EXPECT_TRUE(found == Serve(direct.get()));
  EXPECT_EQ(direct->step_graphs().replayed, 0);
  const StepGraphs steps = graphs->step_graphs();
  EXPECT_GT(steps.replayed, 40) << steps.built << " built";
  EXPECT_GT(steps.updated, 0);
  EXPECT_GT(steps.built, 2);
}

TEST(GraphStepTest, NineOfTenStepsOfASteadyBatchAreReplayed) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenTestDevice(/*launches=*/false));
  ModelRunner runner(backend.get(), OptionsOf("dense"));
  std::vector<ModelRunner::Sequence> sequences(5);
  const std::vector<int32_t> token = {7};
  constexpr int kSteps = 400;
  for (int i = 0; i < kSteps; ++i) {
    std::vector<ModelRunner::Feed> feeds;
    for (ModelRunner::Sequence& sequence : sequences) {
      feeds.push_back({&sequence, token, 1});
    }
    runner.Step(feeds);
  }
  const StepGraphs steps = backend->step_graphs();
  EXPECT_EQ(steps.replayed + steps.updated + steps.built + steps.direct,
            kSteps);
  EXPECT_GT(steps.replayed, kSteps * 9 / 10)
      << steps.updated << " updated, " << steps.built << " built";
}

TEST(GraphStepTest, PromptsAndStepsThatTheHostReadsGoDirectly) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenTestDevice(/*launches=*/false));
  ModelRunner runner(backend.get(), OptionsOf("dense"));
  const std::vector<int32_t> ids = {1, 2, 3};
  for (int i = 0; i < 3; ++i) {
    ModelRunner::Sequence sequence;
    runner.Step({{&sequence, ids, 1}});
  }
  EXPECT_EQ(backend->step_graphs().direct, 3);
  // Rows are read between layers.
  HeadStatistics statistics(runner.model().layout(), /*gram=*/false);
  ModelRunner::Sequence counted{.statistics = &statistics};
  for (const int32_t id : ids) {
    runner.Step({{&counted, absl::MakeConstSpan(&id, 1), 1}});
  }
  EXPECT_EQ(backend->step_graphs().direct, 6);
}

}  // namespace
}  // namespace headcount::gpu
