// How long steps of a model take: decoding at some batch sizes, and prompts.
//
//   step_gpu_benchmark MODEL [seconds per case]
//
// Pages hold zeros: what they hold is not looked at, only how many there are.
// Prints a line of JSON for each case. `host_us` is what the host does of a
// step before it waits for the device; `hash` is of the tokens drawn.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "backend/cuda/cuda_backend.h"
#include "base/check.h"
#include "heads/kv_geometry.h"
#include "model/model.h"
#include "tests/gpu/device.h"

namespace headcount::gpu {
namespace {

struct StepCase {
  int batch = 1;
  int context = 1024;  // tokens before the step
  int new_tokens = 1;  // of each sequence
};

class StepBenchmark {
 public:
  StepBenchmark(Backend* backend, Model* model, const Variant* variant,
                std::string what)
      : backend_(backend),
        model_(model),
        variant_(variant),
        what_(std::move(what)) {}

  void Run(const StepCase& c, double seconds) {
    const KvGeometry& geometry = variant_->geometries().front();
    const int64_t blocks =
        KvGeometry::BlocksFor(c.context + c.new_tokens) * c.batch;
    absl::StatusOr<std::unique_ptr<Buffer>> arena =
        backend_->Allocate(blocks * geometry.block_bytes());
    CHECK(arena.ok()) << arena.status();
    Zero((*arena).get());
    MakeBatch(c, geometry.block_bytes());
    std::vector<SampleRow> rows(static_cast<size_t>(c.batch));
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].logits_row = static_cast<int32_t>(i);
      rows[i].temperature = 0.7f;
      rows[i].top_p = 0.9f;
      rows[i].seed = i;
    }
    uint64_t hash = 0;
    int64_t steps = 0;
    absl::Duration host;
    absl::Time start;
    // Two that grow what grows are not counted.
    for (int64_t step = -2;; ++step) {
      if (step == 0) start = absl::Now();
      const absl::Time begin = absl::Now();
      const Logits logits = model_->Forward(batch_, (*arena)->data()).value();
      if (step >= 0) host += absl::Now() - begin;
      hash = 0;
      for (const SampleResult& result :
           backend_->Sample(logits.data, logits.vocab, rows)) {
        hash = hash * 1'000'003 + static_cast<uint64_t>(result.token);
      }
      steps = step + 1;
      if (steps >= 3 && absl::Now() - start > absl::Seconds(seconds)) break;
    }
    Print(c, (absl::Now() - start) / steps, host / steps, hash);
  }

 private:
  void Zero(Buffer* buffer) {
    const std::vector<char> zeros(size_t{64} << 20);
    for (int64_t at = 0; at < buffer->bytes();) {
      const int64_t bytes = std::min<int64_t>(
          static_cast<int64_t>(zeros.size()), buffer->bytes() - at);
      backend_->CopyToDevice(zeros.data(), bytes,
                             static_cast<char*>(buffer->data()) + at);
      at += bytes;
    }
  }

  void MakeBatch(const StepCase& c, int64_t block_bytes) {
    batch_.sequences.clear();
    const int64_t each = KvGeometry::BlocksFor(c.context + c.new_tokens);
    offsets_.resize(static_cast<size_t>(each * c.batch));
    // Blocks of a sequence lie apart.
    for (int64_t i = 0; i < each * c.batch; ++i) {
      offsets_[static_cast<size_t>(i % c.batch * each + i / c.batch)] =
          i * block_bytes;
    }
    tokens_.assign(static_cast<size_t>(c.new_tokens), 17);
    for (int s = 0; s < c.batch; ++s) {
      batch_.sequences.push_back(
          {.variant = variant_,
           .tokens = tokens_,
           .past = c.context,
           .blocks = {absl::MakeConstSpan(offsets_).subspan(
               static_cast<size_t>(s * each), static_cast<size_t>(each))},
           .logits_rows = 1});
    }
  }

  void Print(const StepCase& c, absl::Duration step, absl::Duration host,
             uint64_t hash) const {
    const double tokens = c.batch * c.new_tokens / absl::ToDoubleSeconds(step);
    absl::PrintF(
        "{\"model\": \"%s\", \"batch\": %d, \"context\": %d, "
        "\"new_tokens\": %d, \"ms\": %.3f, \"host_us\": %.0f, "
        "\"tokens_per_s\": %.0f, \"hash\": \"%016x\"}\n",
        what_, c.batch, c.context, c.new_tokens,
        absl::ToDoubleMilliseconds(step), absl::ToDoubleMicroseconds(host),
        tokens, hash);
    std::fflush(stdout);
  }

  Backend* const backend_;
  Model* const model_;
  const Variant* const variant_;
  const std::string what_;
  Batch batch_;
  std::vector<int64_t> offsets_;
  std::vector<int32_t> tokens_;
};

std::unique_ptr<Model> Load(const std::string& path, const HeadMask& mask,
                            Backend* backend) {
  const absl::Time start = absl::Now();
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load({.path = path,
                   .mask = mask,
                   .kv_dtype = KvDtype::kBf16,
                   .max_step_tokens = 2048},
                  backend);
  CHECK(model.ok()) << model.status();
  absl::PrintF("{\"loaded_s\": %.1f, \"weight_bytes\": %d}\n",
               absl::ToDoubleSeconds(absl::Now() - start),
               (*model)->weight_bytes());
  std::fflush(stdout);
  return *std::move(model);
}

// Every other KV group of each layer.
HeadMask HalfOf(const HeadLayout& layout) {
  HeadMask mask;
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    const LayerHeads& layer = layout.layers()[l];
    for (const KvHead& head : layer.kv_heads) {
      if (head.index % 2 == 0) continue;
      for (int i = 0; i < head.num_queries; ++i) {
        mask.pruned[static_cast<int>(l)].insert(
            layer.query_heads[static_cast<size_t>(head.first_query + i)]);
      }
    }
  }
  return mask;
}

void RunAll(const std::string& path, double seconds) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenTestDevice());
  const std::vector<StepCase> decode = {
      {1, 1024}, {8, 1024}, {32, 1024}, {64, 1024}, {32, 4096}};
  HeadMask half;
  {
    const std::unique_ptr<Model> model = Load(path, {}, backend.get());
    half = HalfOf(model->layout());
    const std::shared_ptr<const Variant> int8 =
        model->MakeVariant({.kv_dtype = KvDtype::kInt8}).value();
    StepBenchmark all(backend.get(), model.get(), model->whole().get(),
                      "all heads, bf16");
    StepBenchmark all_int8(backend.get(), model.get(), int8.get(),
                           "all heads, int8 KV");
    for (const StepCase& c : decode) all.Run(c, seconds);
    for (const StepCase& c : decode) all_int8.Run(c, seconds);
    for (const int tokens : {128, 512, 2048}) {
      all.Run({.batch = 1, .context = 0, .new_tokens = tokens}, seconds);
    }
  }
  const std::unique_ptr<Model> model = Load(path, half, backend.get());
  StepBenchmark pruned(backend.get(), model.get(), model->whole().get(),
                       "half of the groups, bf16");
  for (const StepCase& c : decode) pruned.Run(c, seconds);
}

}  // namespace
}  // namespace headcount::gpu

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: step_gpu_benchmark MODEL [seconds per case]\n", stderr);
    return 2;
  }
  headcount::gpu::RunAll(argv[1], argc > 2 ? std::atof(argv[2]) : 2);
}
