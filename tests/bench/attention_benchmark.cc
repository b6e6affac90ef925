// Attention by head geometry, pages dtype and shape of the step. GFLOP/s counts
// the visible tokens only; GB/s counts each page once for each KV head and
// sequence. `of_read` is what that is of the rate at which as many threads read
// as many bytes and do nothing else: medians of calls that take turns. `hash`
// is one of the result's bits: work on speed must leave it as it is (it does
// depend on whether the SIMD target fuses multiply-adds).
//
//   attention_benchmark --benchmark_filter=mailroom/decode
//   HEADCOUNT_THREADS=1 attention_benchmark
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/thread_pool.h"
#include "base/half.h"
#include "benchmark/benchmark.h"
#include "heads/head_slots.h"
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
// With all dtypes.
constexpr Shape kLongDecodes[] = {{1, 4095, 1}, {16, 4095, 1}};
constexpr Shape kPrefills[] = {{1, 0, 64}, {1, 0, 256}, {1, 1792, 256}};

constexpr KvDtype kDtypes[] = {KvDtype::kF32,  KvDtype::kF16,
                               KvDtype::kBf16, KvDtype::kFp8E4m3,
                               KvDtype::kInt8, KvDtype::kInt4};

// Elements between -1 and 1, or any codes under one scale, in all pages.
void FillPages(const KvGeometry& geometry, const LayerHeads& heads,
               absl::Span<const int64_t> blocks, std::byte* arena) {
  const int64_t bytes =
      static_cast<int64_t>(blocks.size()) * geometry.block_bytes();
  const KvDtype dtype = heads.kv_heads[0].dtype;
  const ElementType as = dtype == KvDtype::kF32    ? ElementType::kF32
                         : dtype == KvDtype::kBf16 ? ElementType::kBf16
                                                   : ElementType::kF16;
  const std::vector<std::byte> values =
      RandomWeights(bytes / (as == ElementType::kF32 ? 4 : 2), as, /*seed=*/3);
  std::copy(values.begin(), values.end(), arena);
  if (!IsQuantized(dtype)) return;
  const std::vector<uint16_t> scales(2 * kBlockTokens, HalfFromFloat(0.01f));
  for (const int64_t block : blocks) {
    for (size_t slot = 0; slot < heads.kv_heads.size(); ++slot) {
      const KvPage& page = geometry.page(0, static_cast<int>(slot));
      std::memcpy(arena + block + page.k_scales_offset, scales.data(),
                  scales.size() * sizeof(uint16_t));
    }
  }
}

// Reads memory and does nothing else: memchr, in vain.
class ReadSweep {
 public:
  explicit ReadSweep(int64_t bytes)
      : pool_(BenchThreads() > 0 ? BenchThreads() : AvailableCores()),
        memory_(static_cast<size_t>(bytes), 1) {}

  void Read() {
    constexpr size_t kPiece = size_t{1} << 18;
    const size_t pieces = (memory_.size() + kPiece - 1) / kPiece;
    pool_.Run(static_cast<int64_t>(pieces), [&](int64_t piece, int /*worker*/) {
      const size_t begin = static_cast<size_t>(piece) * kPiece;
      const size_t bytes = std::min(kPiece, memory_.size() - begin);
      benchmark::DoNotOptimize(std::memchr(&memory_[begin], 0, bytes));
    });
  }

 private:
  ThreadPool pool_;
  std::vector<char> memory_;
};

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
    const LayerHeads& heads = layout->layers()[0];
    FillPages(geometries[0], heads, offsets,
              static_cast<std::byte*>(arena->data()));
    plans.resize(1);
    PlanAttention(heads, sequences, {}, &plans[0]);
    slots = SlotsIn(*layout, *layout).value()[0];
    whole = {.heads = &heads,
             .geometries = geometries,
             .query_slots = slots.query,
             .kv_slots = slots.kv};
    layer.query_heads = static_cast<int>(slots.query.size());
    layer.kv_heads = static_cast<int>(slots.kv.size());
    layer.variants = absl::MakeConstSpan(&whole, 1);
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

  void Attend() {
    backend->Attention(layer, qkv.data(), arena->data(), out.data());
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<HeadLayout> layout;
  std::vector<KvGeometry> geometries;
  std::vector<StepSequence> sequences;
  std::vector<int32_t> positions;
  std::vector<int64_t> offsets;
  std::unique_ptr<Buffer> arena;
  std::vector<AttentionPlan> plans;
  LayerSlots slots;
  VariantLayer whole;
  AttentionLayer layer;
  std::vector<float> qkv;
  std::vector<float> out;
  int64_t visible = 0;
  int64_t flops = 0;
  int64_t page_bytes = 0;
};

double Seconds(absl::FunctionRef<void()> body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  const std::chrono::duration<double> taken =
      std::chrono::steady_clock::now() - start;
  return taken.count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The rate of attention as a part of that of reading.
double OfRead(Step& step) {
  constexpr int kRounds = 25;
  ReadSweep sweep(step.page_bytes);
  std::vector<double> attention;
  std::vector<double> reading;
  for (int round = 0; round < kRounds; ++round) {
    attention.push_back(Seconds([&] { step.Attend(); }));
    reading.push_back(Seconds([&] { sweep.Read(); }));
  }
  return Median(reading) / Median(attention);
}

void BM_Attention(benchmark::State& state, const Geometry& geometry,
                  KvDtype dtype, Shape shape) {
  Step step(geometry, dtype, shape);
  for (auto _ : state) step.Attend();
  const double calls = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] =
      benchmark::Counter(calls * static_cast<double>(step.flops) * 1e-9,
                         benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(calls * static_cast<double>(step.page_bytes) * 1e-9,
                         benchmark::Counter::kIsRate);
  if (shape.past >= 4095) state.counters["of_read"] = OfRead(step);
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
    for (const KvDtype dtype : kDtypes) {
      for (const Shape& shape : kLongDecodes) {
        add("decode", BM_Attention, geometry, dtype, shape);
      }
      add("prefill", BM_Attention, geometry, dtype, {1, 1024, 256});
      add("store", BM_RotateAndStore, geometry, dtype, {16, 127, 1});
      add("store", BM_RotateAndStore, geometry, dtype, {1, 0, 256});
    }
  }
}

}  // namespace
}  // namespace headcount

int main(int argc, char** argv) {
  headcount::RegisterAll();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
