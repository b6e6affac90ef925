// What the host does of a decode step on a GPU, and for how long: on the
// emulator, which computes nothing here, so that no GPU is needed.
//
//   tests/gpu/make_model.py MODEL --small
//   step_host_benchmark MODEL [steps per case]
//
// Contexts grow by a token each step, as they do. Prints a line of JSON for
// each case with medians, in microseconds: `inputs`, what the model makes of a
// batch; `tables`, what the backend makes of that and uploads; `record`, the
// calls of operations; `graph`, to find the graph; `sample`, to draw tokens;
// and `host_us`, the whole step. What the driver takes for its part is not in
// it. `upload_bytes` are the last step's, `hash` is of what the first steps
// uploaded.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/forwarding_device.h"
#include "base/check.h"
#include "heads/kv_geometry.h"
#include "model/model.h"
#include "tests/gpu/device.h"

namespace headcount::gpu {
namespace {

enum Phase { kInputs, kTables, kRecord, kGraph, kSample, kStep, kPhases };
using Times = std::array<int64_t, kPhases>;  // ns

// Notes when the parts of a step begin and end.
class TimedDevice final : public cuda::ForwardingDevice {
 public:
  explicit TimedDevice(std::unique_ptr<cuda::Device> device)
      : ForwardingDevice(device.get()), owned_(std::move(device)) {}

  // An H100's: decode kernels have work for each of them.
  int multiprocessors() const override { return 132; }

  void StartStep() {
    uploaded_ = 0;
    start_ = last_ = absl::GetCurrentTimeNanos();
  }
  void End(Phase phase) {
    const int64_t now = absl::GetCurrentTimeNanos();
    times_[phase] += now - last_;
    last_ = now;
  }
  Times EndStep() {
    times_[kStep] = absl::GetCurrentTimeNanos() - start_;
    return std::exchange(times_, {});
  }
  // By the last step.
  int64_t uploaded() const { return uploaded_; }
  // Of what was uploaded while `hashes` was set.
  uint64_t hash() const { return hash_; }
  bool hashes = false;

  void BeginRange(const char* name) override {
    const std::string_view range = name;
    if (range == "begin step") End(kInputs);
    if (range == "graph") End(kRecord);
    ranges_.push_back(range);
  }
  void EndRange() override {
    if (ranges_.back() == "begin step") End(kTables);
    if (ranges_.back() == "graph") End(kGraph);
    ranges_.pop_back();
  }
  void Upload(const void* host, int64_t bytes, void* device) override {
    uploaded_ += bytes;
    if (hashes) {
      Hash({static_cast<const char*>(host), static_cast<size_t>(bytes)});
    }
    ForwardingDevice::Upload(host, bytes, device);
  }

 private:
  void Hash(std::string_view bytes) {
    for (const char byte : bytes) {
      hash_ = (hash_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    }
  }

  const std::unique_ptr<cuda::Device> owned_;
  int64_t start_ = 0;
  int64_t last_ = 0;
  int64_t uploaded_ = 0;
  Times times_ = {};
  std::vector<std::string_view> ranges_;
  uint64_t hash_ = 0xcbf29ce484222325;
};

struct HostCase {
  int batch = 1;
  int context = 1024;  // tokens before the first step
};

class HostBenchmark {
 public:
  HostBenchmark(Backend* backend, TimedDevice* device, Model* model)
      : backend_(*backend), device_(*device), model_(*model) {}

  void Run(const HostCase& c, int steps) {
    MakeBatch(c, steps);
    const StepGraphs before = backend_.step_graphs();
    std::vector<Times> times;
    device_.hashes = true;
    for (int step = 0; step < steps; ++step) {
      if (step == steps / 4) device_.hashes = false;
      const Times taken = Step();
      if (!device_.hashes) times.push_back(taken);
    }
    Print(c, times, before);
  }

 private:
  // The arena is never looked at.
  void MakeBatch(const HostCase& c, int steps) {
    const int64_t each = KvGeometry::BlocksFor(c.context + steps);
    const int64_t block_bytes =
        model_.whole()->geometries().front().block_bytes();
    offsets_.resize(static_cast<size_t>(each * c.batch));
    for (size_t i = 0; i < offsets_.size(); ++i) {
      offsets_[i] = static_cast<int64_t>(i) * block_bytes;
    }
    batch_.sequences.clear();
    rows_.assign(static_cast<size_t>(c.batch), {});
    for (int s = 0; s < c.batch; ++s) {
      batch_.sequences.push_back(
          {.variant = model_.whole().get(),
           .tokens = absl::MakeConstSpan(&token_, 1),
           .past = c.context,
           .blocks = {absl::MakeConstSpan(offsets_).subspan(
               static_cast<size_t>(s * each), static_cast<size_t>(each))},
           .logits_rows = 1});
      rows_[static_cast<size_t>(s)].logits_row = s;
    }
  }

  Times Step() {
    for (BatchSequence& sequence : batch_.sequences) {
      // As many blocks as the engine would give it.
      sequence.blocks.front() = absl::MakeConstSpan(
          sequence.blocks.front().data(),
          static_cast<size_t>(KvGeometry::BlocksFor(sequence.past + 1)));
    }
    device_.StartStep();
    const Logits logits = model_.Forward(batch_, nullptr).value();
    device_.End(kRecord);
    backend_.Sample(logits.data, logits.vocab, rows_);
    device_.End(kSample);
    const Times times = device_.EndStep();
    for (BatchSequence& sequence : batch_.sequences) ++sequence.past;
    return times;
  }

  void Print(const HostCase& c, std::vector<Times> times,
             const StepGraphs& before) const {
    const auto median = [&](Phase phase) {
      const auto middle =
          times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
      std::nth_element(
          times.begin(), middle, times.end(),
          [&](const Times& a, const Times& b) { return a[phase] < b[phase]; });
      return static_cast<double>((*middle)[phase]) / 1000;
    };
    const StepGraphs now = backend_.step_graphs();
    absl::PrintF(
        "{\"batch\": %d, \"context\": %d, \"inputs\": %.1f, \"tables\": %.1f, "
        "\"record\": %.1f, \"graph\": %.1f, \"sample\": %.1f, "
        "\"host_us\": %.1f, \"replayed\": %d, \"updated\": %d, \"built\": %d, "
        "\"direct\": %d, \"upload_bytes\": %d, \"hash\": \"%016x\"}\n",
        c.batch, c.context, median(kInputs), median(kTables), median(kRecord),
        median(kGraph), median(kSample), median(kStep),
        now.replayed - before.replayed, now.updated - before.updated,
        now.built - before.built, now.direct - before.direct,
        device_.uploaded(), device_.hash());
    std::fflush(stdout);
  }

  Backend& backend_;
  TimedDevice& device_;
  Model& model_;
  const int32_t token_ = 17;
  Batch batch_;
  std::vector<int64_t> offsets_;
  std::vector<SampleRow> rows_;
};

void RunAll(const char* path, int steps) {
  auto owned = std::make_unique<TimedDevice>(OpenTestDevice(false));
  TimedDevice* const device = owned.get();
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(std::move(owned));
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(
      {.path = path, .kv_dtype = KvDtype::kBf16, .max_step_tokens = 64},
      backend.get());
  CHECK(model.ok()) << model.status();
  HostBenchmark benchmark(backend.get(), device, model->get());
  for (const int context : {1024, 4096}) {
    for (const int batch : {1, 8, 32, 64}) {
      benchmark.Run({.batch = batch, .context = context}, steps);
    }
  }
}

}  // namespace
}  // namespace headcount::gpu

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: step_host_benchmark MODEL [steps per case]\n", stderr);
    return 2;
  }
  headcount::gpu::RunAll(argv[1], argc > 2 ? std::atoi(argv[2]) : 400);
}
