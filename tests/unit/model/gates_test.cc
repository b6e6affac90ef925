// Gates of heads: 0 is what pruning does, 1 is nothing at all, and nobody's
// gates touch another sequence.
#include <algorithm>
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

ModelRunner Load(Backend* backend, const GoldenModel& model,
                 const HeadMask& mask) {
  return ModelRunner(
      backend,
      {.model = {.path = model.path, .mask = mask, .kv_dtype = KvDtype::kF32}});
}

// 0 for the heads of the mask, 1 for the others.
std::vector<float> GatesOf(const HeadLayout& dense, const HeadMask& mask) {
  std::vector<float> gates;
  for (size_t layer = 0; layer < dense.layers().size(); ++layer) {
    const auto pruned = mask.pruned.find(static_cast<int>(layer));
    for (int head = 0; head < dense.layers()[layer].dense.query_heads; ++head) {
      const bool closed =
          pruned != mask.pruned.end() && pruned->second.count(head) > 0;
      gates.push_back(closed ? 0.0f : 1.0f);
    }
  }
  return gates;
}

// 0, 0.25, ... 1 in turn.
std::vector<float> SomeGates(const HeadLayout& layout) {
  std::vector<float> gates;
  for (int64_t i = 0; i < layout.dense_query_heads(); ++i) {
    gates.push_back(static_cast<float>(i * 3 % 5) / 4);
  }
  return gates;
}

std::vector<LogitsRow> LogitsOf(ModelRunner* runner,
                                const std::vector<int32_t>& ids,
                                const std::vector<float>& gates) {
  ModelRunner::Sequence sequence;
  sequence.gates = gates;
  return runner->Prefill(&sequence, ids, static_cast<int32_t>(ids.size()));
}

// The beginning of a prompt of the model.
std::vector<int32_t> SomeIds(const GoldenModel& model) {
  std::vector<int32_t> ids = model.cases.front().ids;
  ids.resize(std::min<size_t>(ids.size(), 40));
  return ids;
}

TEST(Gates, OfZeroEqualPruning) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  int compared = 0;
  for (const GoldenModel& model : ReadGoldenModels()) {
    ModelRunner dense = Load(backend.get(), model, {});
    for (const auto& [name, mask] : model.masks) {
      SCOPED_TRACE(model.name + " " + name);
      ModelRunner pruned = Load(backend.get(), model, mask);
      const std::vector<float> gates = GatesOf(dense.model().layout(), mask);
      for (const GoldenCase& golden : model.cases) {
        if (golden.mask != name || golden.ids.size() > 100) continue;
        const std::vector<LogitsRow> want = LogitsOf(&pruned, golden.ids, {});
        EXPECT_LT(Furthest(LogitsOf(&dense, golden.ids, gates), want), 1e-4)
            << golden.name;
        // Those of pruned heads are not read.
        EXPECT_TRUE(SameBits(LogitsOf(&pruned, golden.ids, gates), want));
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 20);
}

TEST(Gates, OfOneChangeNoBit) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (const auto& [name, mask] : model.masks) {
      SCOPED_TRACE(model.name + " " + name);
      ModelRunner runner = Load(backend.get(), model, mask);
      const std::vector<float> ones(
          static_cast<size_t>(runner.model().layout().dense_query_heads()),
          1.0f);
      const std::vector<int32_t> ids = SomeIds(model);
      EXPECT_TRUE(
          SameBits(LogitsOf(&runner, ids, ones), LogitsOf(&runner, ids, {})));
    }
  }
}

TEST(Gates, BetweenAgreeWithTheReference) {
  const std::unique_ptr<Backend> cpu = CreateCpuBackend({});
  const std::unique_ptr<Backend> reference = CreateReferenceBackend();
  for (const GoldenModel& model : ReadGoldenModels()) {
    if (model.name == "mailroom") continue;  // slow
    for (const auto& [name, mask] : model.masks) {
      SCOPED_TRACE(model.name + " " + name);
      ModelRunner runner = Load(cpu.get(), model, mask);
      ModelRunner other = Load(reference.get(), model, mask);
      const std::vector<float> gates = SomeGates(runner.model().layout());
      const std::vector<int32_t> ids = SomeIds(model);
      const std::vector<LogitsRow> found = LogitsOf(&runner, ids, gates);
      EXPECT_LT(Furthest(found, LogitsOf(&other, ids, gates)), 1e-3);
      if (runner.model().layout().query_heads() < 2) continue;
      EXPECT_GT(Furthest(found, LogitsOf(&runner, ids, {})), 1e-3);
    }
  }
}

TEST(Gates, TouchNoOtherSequenceOfTheBatch) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const GoldenModel& model : ReadGoldenModels()) {
    SCOPED_TRACE(model.name);
    ModelRunner runner = Load(backend.get(), model, {});
    const std::vector<float> some = SomeGates(runner.model().layout());
    const std::vector<float> ones(some.size(), 1.0f);
    const std::vector<float> none;
    const std::vector<const std::vector<float>*> gates = {&none, &some, &none,
                                                          &ones, &some};
    const std::vector<int32_t> ids = SomeIds(model);
    std::vector<ModelRunner::Sequence> sequences(gates.size());
    std::vector<ModelRunner::Feed> feeds;
    for (size_t i = 0; i < gates.size(); ++i) {
      sequences[i].gates = *gates[i];
      feeds.push_back({&sequences[i], ids, 1});
    }
    const std::vector<LogitsRow> together = runner.Step(feeds);
    for (size_t i = 0; i < gates.size(); ++i) {
      const LogitsRow alone = LogitsOf(&runner, ids, *gates[i]).back();
      EXPECT_TRUE(SameBits({together[i]}, {alone})) << "sequence " << i;
    }
  }
}

}  // namespace
}  // namespace headcount
