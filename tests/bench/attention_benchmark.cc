// Attention by head geometry, pages dtype and shape of the step. GFLOP/s counts
// the visible tokens only; GB/s counts each page once for each KV head and
// sequence. `hash` is one of the result's bits: work on speed must leave it as
// it is (it does depend on whether the SIMD target fuses multiply-adds).
//
//   attention_benchmark --benchmark_filter=mailroom/decode
//   HEADCOUNT_THREADS=1 attention_benchmark
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "benchmark/benchmark.h"
#include "tests/bench/bench_data.h"

namespace headcount {
namespace {

struct Geometry {
  const char* name;
  LayerShape shape;
  int head_dim;
  std::set<int> pruned;
};

const Geometry& GeometryAt(size_t index) {
  static const auto* geometries = new std::vector<Geometry>{
      {"mailroom", {12, 4}, 32, {}},
      {"mailroom_pruned", {12, 4}, 32, {1, 2, 3, 9, 10, 11}},
      {"llama", {32, 8}, 128, {}},
      {"llama_pruned", {32, 8}, 128, {1, 2, 3, 8, 9, 10, 11, 31}}};
  return (*geometries)[index];
}

// `sequences` with `past` tokens each; `rows` new ones.
struct Shape {
  int sequences;
  int past;
  int rows;
};

constexpr Shape kDecodes[] = {{1, 127, 1},  {1, 2047, 1},  {16, 127, 1},
                              {16, 511, 1}, {16, 2047, 1}, {1, 16383, 1}};
constexpr Shape kPrefills[] = {{1, 0, 64}, {1, 0, 256}, {1, 1792, 256}};

// Halves or floats between -1 and 1.
void FillPages(KvDtype dtype, int64_t bytes, void* arena) {
  const int64_t count = bytes / KvDtypeBytes(dtype);
  const ElementType as =
      dtype == KvDtype::kF32 ? ElementType::kF32 : ElementType::kF16;
  const std::vector<std::byte> values = RandomWeights(count, as, /*seed=*/3);
  std::copy(values.begin(), values.end(), static_cast<std::byte*>(arena));
}

// Everything that one step of one layer needs.
struct Step {
  Step(const Geometry& geometry, KvDtype dtype, const Shape& shape)
      : backend(CreateCpuBackend({.threads = BenchThreads()})) {
    HeadLayoutSpec spec;
    spec.layers = {geometry.shape};
    spec.head_dim = geometry.head_dim;
    spec.kv_dtype = dtype;
    if (!geometry.pruned.empty()) spec.mask.pruned[0] = geometry.pruned;
    layout = std::make_unique<HeadLayout>(*HeadLayout::Create(spec));
    geometries.push_back(*KvGeometry::Create(*layout, 0));
    const int64_t blocks = KvGeometry::BlocksFor(shape.past + shape.rows);
    for (int s = 0; s < shape.sequences; ++s) {
      StepSequence sequence;
      sequence.first_row = static_cast<int32_t>(positions.size());
      sequence.num_rows = shape.rows;
      sequence.past = shape.past;
      sequence.block_begin = {static_cast<int64_t>(offsets.size())};
      sequences.push_back(sequence);
      for (int row = 0; row < shape.rows; ++row) {
        positions.push_back(shape.past + row);
      }
      for (int64_t block = 0; block < blocks; ++block) {
        offsets.push_back(static_cast<int64_t>(offsets.size()) *
                          geometries[0].block_bytes());
      }
    }
    const int64_t bytes =
        static_cast<int64_t>(offsets.size()) * geometries[0].block_bytes();
    arena = *backend->Allocate(bytes);
    FillPages(dtype, bytes, arena->data());
    const LayerHeads& heads = layout->layers()[0];
    plans.resize(1);
    PlanAttention(heads, sequences, {}, &plans[0]);
    layer.heads = &heads;
    layer.geometries = geometries;
    layer.head_dim = geometry.head_dim;
    const auto queries = static_cast<int64_t>(heads.query_heads.size());
    const auto kv_heads = static_cast<int64_t>(heads.kv_heads.size());
    const auto rows = static_cast<int64_t>(positions.size());
    qkv = RandomFloats(rows * (queries + 2 * kv_heads) * geometry.head_dim,
                       /*seed=*/4);
    out.resize(static_cast<size_t>(rows * queries * geometry.head_dim));
    visible = 0;
    for (const int32_t position : positions) visible += position + 1;
    flops = 4 * visible * queries * geometry.head_dim;
    page_bytes = bytes;
    Rope rope;
    rope.inverse_frequency.assign(static_cast<size_t>(geometry.head_dim / 2),
                                  0.01f);
    StepInputs inputs;
    inputs.tokens = positions;
    inputs.positions = positions;
    inputs.sequences = sequences;
    inputs.block_offsets = offsets;
    inputs.plans = plans;
    backend->BeginStep(inputs, rope);
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<HeadLayout> layout;
  std::vector<KvGeometry> geometries;
  std::vector<StepSequence> sequences;
  std::vector<int32_t> positions;
  std::vector<int64_t> offsets;
  std::unique_ptr<Buffer> arena;
  std::vector<AttentionPlan> plans;
  AttentionLayer layer;
  std::vector<float> qkv;
  std::vector<float> out;
  int64_t visible = 0;
  int64_t flops = 0;
  int64_t page_bytes = 0;
};

void BM_Attention(benchmark::State& state, const Geometry& geometry,
                  KvDtype dtype, Shape shape) {
  Step step(geometry, dtype, shape);
  for (auto _ : state) {
    step.backend->Attention(step.layer, step.qkv.data(), step.arena->data(),
                            step.out.data());
  }
  const double calls = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] =
      benchmark::Counter(calls * static_cast<double>(step.flops) * 1e-9,
                         benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(calls * static_cast<double>(step.page_bytes) * 1e-9,
                         benchmark::Counter::kIsRate);
  state.SetLabel(HashLabel(step.out));
}

void BM_RotateAndStore(benchmark::State& state, const Geometry& geometry,
                       KvDtype dtype, Shape shape) {
  Step step(geometry, dtype, shape);
  for (auto _ : state) {
    step.backend->RotateAndStoreKv(step.layer, step.qkv.data(),
                                   step.arena->data());
  }
}

void RegisterAll() {
  const auto add = [](const char* what, auto* body, const Geometry& geometry,
                      KvDtype dtype, const Shape& shape) {
    const std::string name = std::string(geometry.name) + "/" + what + "/" +
                             std::string(KvDtypeName(dtype)) +
                             "/B:" + std::to_string(shape.sequences) +
                             "/past:" + std::to_string(shape.past) +
                             "/rows:" + std::to_string(shape.rows);
    benchmark::RegisterBenchmark(name.c_str(), body, geometry, dtype, shape)
        ->UseRealTime();
  };
  for (size_t i = 0; i < 4; ++i) {
    const Geometry& geometry = GeometryAt(i);
    for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kF32}) {
      for (const Shape& shape : kDecodes) {
        add("decode", BM_Attention, geometry, dtype, shape);
      }
      for (const Shape& shape : kPrefills) {
        add("prefill", BM_Attention, geometry, dtype, shape);
      }
    }
    add("store", BM_RotateAndStore, geometry, KvDtype::kF16, {16, 127, 1});
    add("store", BM_RotateAndStore, geometry, KvDtype::kF16, {1, 0, 256});
  }
}

}  // namespace
}  // namespace headcount

int main(int argc, char** argv) {
  headcount::RegisterAll();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
