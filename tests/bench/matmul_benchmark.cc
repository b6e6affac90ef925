// MatMul by shape, weight dtype and rows. GFLOP/s counts a multiply-add as two;
// GB/s counts each weight once a call. `hash` is one of the result's bits: work
// on speed must leave it as it is (it does depend on the SIMD target). q4_wide
// takes rows in 16 bits, not 8; no_amx leaves tiles alone, where there are
// some.
//
//   matmul_benchmark --benchmark_filter=f16/768x192
//   HEADCOUNT_THREADS=1 matmul_benchmark
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "benchmark/benchmark.h"
#include "tests/bench/bench_data.h"

namespace headcount {
namespace {

struct Shape {
  int64_t outputs;
  int64_t inputs;
};

constexpr Shape kShapes[] = {
    {768, 192},
    {1024, 192},
    {192, 512},
    {2048, 192},
    {4096, 4096},
    // SmolLM2-135M: qkv, attention out, gate and up, down, output.
    {960, 576},
    {576, 576},
    {3072, 576},
    {576, 1536},
    {49152, 576}};
constexpr int64_t kRows[] = {1, 4, 16, 64, 256};

struct Weights {
  const char* name;
  ElementType dtype;
  bool wide_input = false;
  bool amx = true;
};
constexpr Weights kWeights[] = {
    {.name = "f32", .dtype = ElementType::kF32},
    {.name = "f16", .dtype = ElementType::kF16},
    {.name = "bf16", .dtype = ElementType::kBf16},
    {.name = "q4", .dtype = ElementType::kQ4_1},
    {.name = "q4_no_amx", .dtype = ElementType::kQ4_1, .amx = false},
    {.name = "q4_wide", .dtype = ElementType::kQ4_1, .wide_input = true},
    {.name = "q4_wide_no_amx",
     .dtype = ElementType::kQ4_1,
     .wide_input = true,
     .amx = false},
    {.name = "q8", .dtype = ElementType::kQ8_0},
};

void BM_MatMul(benchmark::State& state, Shape shape, const Weights& kind,
               int64_t rows) {
  std::unique_ptr<Backend> backend =
      CreateCpuBackend({.threads = BenchThreads(), .amx = kind.amx});
  const std::vector<std::byte> weights =
      RandomWeights(shape.outputs * shape.inputs, kind.dtype, /*seed=*/1);
  MatrixSource source;
  source.rows = shape.outputs;
  source.cols = shape.inputs;
  source.wide_input = kind.wide_input;
  source.pieces.push_back({.data = weights.data(),
                           .dtype = kind.dtype,
                           .stride = shape.inputs,
                           .rows = shape.outputs,
                           .cols = shape.inputs});
  const std::unique_ptr<Matrix> matrix =
      *backend->Pack(source, Precision::kFast);
  const std::vector<float> x = RandomFloats(rows * shape.inputs, /*seed=*/2);
  std::vector<float> out(static_cast<size_t>(rows * shape.outputs));
  for (auto _ : state) {
    backend->MatMul(*matrix, x.data(), rows, nullptr,
                    Backend::MatMulMode::kStore, out.data());
  }
  const double calls = static_cast<double>(state.iterations());
  const double products =
      static_cast<double>(rows * shape.outputs * shape.inputs);
  state.counters["GFLOP/s"] =
      benchmark::Counter(calls * products * 2e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(calls * static_cast<double>(weights.size()) * 1e-9,
                         benchmark::Counter::kIsRate);
  state.SetLabel(HashLabel(out));
}

void RegisterAll() {
  for (const Weights& kind : kWeights) {
    for (const Shape& shape : kShapes) {
      for (const int64_t rows : kRows) {
        const std::string name = std::string("matmul/") + kind.name + "/" +
                                 std::to_string(shape.outputs) + "x" +
                                 std::to_string(shape.inputs) +
                                 "/rows:" + std::to_string(rows);
        benchmark::RegisterBenchmark(name.c_str(), BM_MatMul, shape, kind, rows)
            ->UseRealTime();
      }
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
