// Times the attention kernels on a GPU.
//
//   attention_benchmark [--json FILE] [--filter TEXT]
//
// A case is a layer of a model over a batch. It is laid out as often as makes
// 256 MiB of pages or more, as the layers of a model are, and a CUDA graph runs
// them one after the other, so that no launch finds its pages in the L2 cache;
// what is told is the median time of one layer. Beside it stands the time that
// a kernel which only reads takes for the same bytes, measured first. Prints a
// Markdown table; `hash` changes when a result does.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <numbers>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "backend/balanced_plan.h"
#include "backend/cuda/attention_items.h"
#include "backend/cuda/attention_kernels.h"
#include "base/check.h"
#include "heads/kv_geometry.h"
#include "tests/gpu/benchmark_cases.h"
#include "tests/gpu/device.h"
#include "tests/gpu/sweep.h"

namespace headcount::gpu {
namespace {

constexpr int64_t kMinPageBytes = int64_t{256} << 20;
constexpr int kMinLayers = 8;
constexpr int kReplays = 15;

void Check(cudaError_t error) {
  CHECK(error == cudaSuccess) << cudaGetErrorString(error);
}

class Timer {
 public:
  Timer() {
    Check(cudaEventCreate(&begin_));
    Check(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  // The median of `times` runs, in microseconds.
  template <class Run>
  double Median(int times, cudaStream_t stream, const Run& run) {
    std::vector<float> milliseconds;
    for (int i = 0; i < times + 3; ++i) {
      Check(cudaEventRecord(begin_, stream));
      run();
      Check(cudaEventRecord(end_, stream));
      Check(cudaEventSynchronize(end_));
      float elapsed = 0;
      Check(cudaEventElapsedTime(&elapsed, begin_, end_));
      if (i >= 3) milliseconds.push_back(elapsed);
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    return 1e3 * milliseconds[milliseconds.size() / 2];
  }

 private:
  cudaEvent_t begin_;
  cudaEvent_t end_;
};

// A layer's launches: decode, prefill, or both.
class Problem {
 public:
  explicit Problem(const BenchmarkCase& c) : case_(c) {
    MakeHeads();
    MakeSequences();
    MakePlan();
    MakeMemory();
  }

  int layers() const { return layers_; }
  int64_t page_bytes() const { return page_bytes_read_; }
  double flops() const { return flops_; }
  size_t items() const { return plan_.decode.size() + plan_.tiles.size(); }

  void Launch(int layer, cudaStream_t stream) const {
    cuda::AttentionParams params{
        .q = queries_->data(),
        .out = out_->data(),
        .q_stride = stride_,
        .out_stride = stride_,
        .activation = cuda::Activation::kBf16,
        .token_scales = IsQuantized(case_.dtype),
        .arena = arena_ + layer * layer_bytes_,
        .blocks = blocks_->data(),
        .heads = heads_->data(),
        .items = decode_items_->data(),
        .worker_begin = worker_begin_->data(),
        .partial_sums = sums_->data(),
        .partial_weights = weights_->data(),
        .counters = counters_->data(),
        .score_scale = std::numbers::log2e_v<float> /
                       std::sqrt(static_cast<float>(case_.head_dim))};
    if (!plan_.decode.empty()) LaunchOne(decode_, workers_, params, stream);
    if (!plan_.tiles.empty()) {
      params.items = tiles_->data();
      LaunchOne(prefill_, static_cast<int>(plan_.tiles.size()), params, stream);
    }
  }

  // FNV-1a of the output of the last launch.
  uint64_t Hash() const {
    uint64_t hash = 14695981039346656037u;
    for (const uint16_t value : out_->Read()) {
      hash = (hash ^ value) * 1099511628211u;
    }
    return hash;
  }

  ~Problem() { cudaFree(arena_); }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

 private:
  static void LaunchOne(const cuda::AttentionKernel& kernel, int grid,
                        const cuda::AttentionParams& params,
                        cudaStream_t stream) {
    void* arguments[] = {const_cast<cuda::AttentionParams*>(&params)};
    // The start of a launch overlaps the end of the one before.
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(grid));
    config.blockDim = dim3(static_cast<unsigned>(kernel.threads));
    config.dynamicSmemBytes = static_cast<size_t>(kernel.shared_bytes);
    config.stream = stream;
    config.attrs = &overlap;
    config.numAttrs = 1;
    Check(cudaLaunchKernelExC(
        &config, reinterpret_cast<const void*>(kernel.kernel), arguments));
  }

  void MakeHeads() {
    int first = 0;
    for (size_t i = 0; i < case_.groups.size(); ++i) {
      layer_.kv_heads.push_back({.index = static_cast<int>(i),
                                 .first_query = first,
                                 .num_queries = case_.groups[i],
                                 .retention = {.window = case_.window},
                                 .dtype = case_.dtype});
      first += case_.groups[i];
    }
    queries_per_row_ = first;
    stride_ = int64_t{first} * case_.head_dim;
    const int most =
        *std::max_element(case_.groups.begin(), case_.groups.end());
    decode_ = cuda::FindDecodeKernel(case_.dtype, case_.head_dim, most);
    prefill_ = cuda::FindPrefillKernel(case_.dtype, case_.head_dim);
    for (const cuda::AttentionKernel& kernel : {decode_, prefill_}) {
      Check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel.kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 kernel.shared_bytes));
    }
    int per_sm = 0;
    Check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &per_sm, reinterpret_cast<const void*>(decode_.kernel), decode_.threads,
        static_cast<size_t>(decode_.shared_bytes)));
    workers_ = Workers() / 2 * per_sm;
    tensor_bytes_ = kBlockTokens * KvRowBytes(case_.head_dim, case_.dtype);
    page_bytes_ = 2 * tensor_bytes_ + (IsQuantized(case_.dtype) ? 64 : 0);
  }

  void MakeSequences() {
    std::vector<int> lengths = case_.lengths;
    if (lengths.empty()) {
      lengths.assign(static_cast<size_t>(case_.sequences), case_.past);
    }
    int64_t blocks = 0;
    int rows = 0;
    for (const int past : lengths) {
      sequences_.push_back({.first_row = rows,
                            .num_rows = case_.rows,
                            .past = past,
                            .block_begin = {blocks}});
      rows += case_.rows;
      blocks += KvGeometry::BlocksFor(past + case_.rows);
      for (int row = 0; row < case_.rows; ++row) {
        int64_t seen = past + row + 1;
        if (case_.window > 0) seen = std::min<int64_t>(seen, case_.window);
        flops_ +=
            4.0 * case_.head_dim * queries_per_row_ * static_cast<double>(seen);
      }
    }
    rows_ = rows;
    num_blocks_ = blocks;
  }

  void MakePlan() {
    std::vector<int> query_slots(static_cast<size_t>(queries_per_row_));
    std::iota(query_slots.begin(), query_slots.end(), 0);
    cut_ =
        cuda::CutGroups(layer_, query_slots, case_.dtype, decode_.max_queries);
    PlanBalanced(cut_, sequences_,
                 {.workers = workers_, .tile_queries = prefill_.max_queries},
                 &plan_);
    const auto pages_of = [&](const std::vector<WorkItem>& items) {
      for (const WorkItem& item : items) {
        const int64_t pages =
            (item.kv_end - item.kv_begin + kBlockTokens - 1) / kBlockTokens;
        page_bytes_read_ += pages * page_bytes_;
      }
    };
    if (case_.rows == 1) pages_of(plan_.decode);
  }

  void MakeMemory() {
    layer_bytes_ =
        num_blocks_ * static_cast<int64_t>(case_.groups.size()) * page_bytes_;
    layers_ = std::max<int>(
        kMinLayers,
        static_cast<int>((kMinPageBytes + layer_bytes_ - 1) / layer_bytes_));
    if (case_.rows > 1) layers_ = 2;
    Check(cudaMalloc(reinterpret_cast<void**>(&arena_),
                     static_cast<size_t>(layers_ * layer_bytes_)));
    const bool floats = KvDtypeBits(case_.dtype) == 16;
    const bool fp8 = case_.dtype == KvDtype::kFp8E4m3;
    FillPages(
        arena_, layers_ * layer_bytes_, page_bytes_, 2 * tensor_bytes_,
        floats ? 0x80FF80FF
        : fp8  ? 0xB7B7B7B7
               : 0xFFFFFFFF,
        floats ? (case_.dtype == KvDtype::kBf16 ? 0x3F003F00 : 0x38003800) : 0);
    std::mt19937 random(1);
    std::vector<int64_t> blocks(static_cast<size_t>(num_blocks_));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (int64_t& block : blocks) {
      block *= static_cast<int64_t>(case_.groups.size()) * page_bytes_;
    }
    blocks_ = std::make_unique<DeviceArray<int64_t>>(blocks);
    std::vector<cuda::AttentionHead> heads;
    for (const KvHead& head : cut_.kv_heads) {
      heads.push_back({.page_offset = head.index * page_bytes_,
                       .first_query = head.first_query,
                       .num_queries = head.num_queries});
    }
    heads_ = std::make_unique<DeviceArray<cuda::AttentionHead>>(heads);
    std::vector<uint16_t> queries(static_cast<size_t>(rows_ * stride_));
    for (uint16_t& q : queries) {  // +-[0.5, 2)
      q = static_cast<uint16_t>((random() & 0x80FF) | 0x3F00);
    }
    queries_ = std::make_unique<DeviceArray<uint16_t>>(queries);
    out_ = std::make_unique<DeviceArray<uint16_t>>(queries.size());
    decode_items_ = std::make_unique<DeviceArray<cuda::AttentionItem>>(
        cuda::MakeAttentionItems(cut_, sequences_, plan_.decode, plan_.merges));
    tiles_ = std::make_unique<DeviceArray<cuda::AttentionItem>>(
        cuda::MakeAttentionItems(cut_, sequences_, plan_.tiles, plan_.merges));
    worker_begin_ = std::make_unique<DeviceArray<int32_t>>(plan_.worker_begin);
    const auto partials = static_cast<size_t>(plan_.num_partials);
    sums_ = std::make_unique<DeviceArray<float>>(
        partials * static_cast<size_t>(case_.head_dim));
    weights_ = std::make_unique<DeviceArray<float>>(2 * partials);
    counters_ = std::make_unique<DeviceArray<int32_t>>(
        std::vector<int32_t>(plan_.merges.size(), 0));
  }

  BenchmarkCase case_;
  LayerHeads layer_;
  LayerHeads cut_;
  int queries_per_row_ = 0;
  int64_t stride_ = 0;
  cuda::AttentionKernel decode_;
  cuda::AttentionKernel prefill_;
  int workers_ = 0;
  int64_t tensor_bytes_ = 0;
  int64_t page_bytes_ = 0;
  std::vector<StepSequence> sequences_;
  int rows_ = 0;
  int64_t num_blocks_ = 0;
  double flops_ = 0;
  BalancedPlan plan_;
  int64_t page_bytes_read_ = 0;
  int64_t layer_bytes_ = 0;
  int layers_ = 0;
  std::byte* arena_ = nullptr;
  std::unique_ptr<DeviceArray<int64_t>> blocks_;
  std::unique_ptr<DeviceArray<cuda::AttentionHead>> heads_;
  std::unique_ptr<DeviceArray<uint16_t>> queries_;
  std::unique_ptr<DeviceArray<uint16_t>> out_;
  std::unique_ptr<DeviceArray<cuda::AttentionItem>> decode_items_;
  std::unique_ptr<DeviceArray<cuda::AttentionItem>> tiles_;
  std::unique_ptr<DeviceArray<int32_t>> worker_begin_;
  std::unique_ptr<DeviceArray<float>> sums_;
  std::unique_ptr<DeviceArray<float>> weights_;
  std::unique_ptr<DeviceArray<int32_t>> counters_;
};

// Microseconds of one layer.
double TimeLayer(const Problem& problem) {
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreate(&stream));
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int layer = 0; layer < problem.layers(); ++layer) {
    problem.Launch(layer, stream);
  }
  cudaGraph_t graph = nullptr;
  Check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  Check(cudaGraphInstantiate(&exec, graph, 0));
  const double us = Timer().Median(
      kReplays, stream, [&] { Check(cudaGraphLaunch(exec, stream)); });
  Check(cudaGraphExecDestroy(exec));
  Check(cudaGraphDestroy(graph));
  Check(cudaStreamDestroy(stream));
  return us / problem.layers();
}

// GB/s of a kernel that only reads.
double ReadBandwidth() {
  const int64_t bytes = int64_t{4} << 30;
  void* memory = nullptr;
  Check(cudaMalloc(&memory, static_cast<size_t>(bytes)));
  FillPages(memory, bytes, bytes, bytes, 0xFFFFFFFF, 0);
  const DeviceArray<uint32_t> out(std::vector<uint32_t>{0});
  const double us = Timer().Median(
      kReplays, nullptr, [&] { ReadOnce(memory, bytes, out.data(), nullptr); });
  Check(cudaFree(memory));
  return static_cast<double>(bytes) / us / 1e3;
}

void Run(const BenchmarkCase& c, double bandwidth, std::ofstream* json) {
  const Problem problem(c);
  const double us = TimeLayer(problem);
  const uint64_t hash = problem.Hash();
  const bool decode = c.rows == 1;
  const double floor_us =
      static_cast<double>(problem.page_bytes()) / bandwidth / 1e3;
  const double rate = decode
                          ? static_cast<double>(problem.page_bytes()) / us / 1e3
                          : problem.flops() / us / 1e6;
  const std::string share =
      decode ? absl::StrFormat("%.1f | %.0f%%", floor_us, 100 * floor_us / us)
             : "- | -";
  std::printf("%s\n",
              absl::StrFormat("| %s | %d | %.1f | %s | %.0f %s | %016x |",
                              c.name, static_cast<int>(problem.items()), us,
                              share, rate, decode ? "GB/s" : "TFLOP/s", hash)
                  .c_str());
  std::fflush(stdout);
  *json << absl::StrFormat(
      "{\"case\": \"%s\", \"us\": %.2f, \"%s\": %.1f, \"hash\": \"%016x\"}\n",
      c.name, us, decode ? "gb_s" : "tflop_s", rate, hash);
}

int Main(int argc, char** argv) {
  std::string json_path = "/dev/null";
  std::string filter;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--json") == 0) json_path = argv[i + 1];
    if (std::strcmp(argv[i], "--filter") == 0) filter = argv[i + 1];
  }
  std::ofstream json(json_path);
  const double bandwidth = ReadBandwidth();
  std::printf("%s, a kernel that only reads: %.0f GB/s\n\n",
              TheDevice().name().c_str(), bandwidth);
  json << absl::StrFormat("{\"gpu\": \"%s\", \"read_gb_s\": %.1f}\n",
                          TheDevice().name(), bandwidth);
  std::printf("| Case | Items | us a layer | floor | of it | rate | hash |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (const BenchmarkCase& c : BenchmarkCases()) {
    if (c.name.find(filter) != std::string::npos) Run(c, bandwidth, &json);
  }
  return 0;
}

}  // namespace
}  // namespace headcount::gpu

int main(int argc, char** argv) { return headcount::gpu::Main(argc, argv); }
