#include "backend/cuda/device.h"

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <functional>
#include <map>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/human.h"
#include "base/mutex.h"

namespace headcount::cuda {
namespace {

// Before there is anything to serve.
void Check(cudaError_t error, const char* what) {
  CHECK(error == cudaSuccess) << what << ": " << cudaGetErrorString(error);
}

cudaKernelNodeParams KernelNode(const LaunchCall& call, void** arguments) {
  cudaKernelNodeParams node = {};
  node.func = const_cast<void*>(call.kernel);
  node.gridDim = dim3(static_cast<unsigned>(call.grid));
  node.blockDim = dim3(static_cast<unsigned>(call.threads));
  node.sharedMemBytes = static_cast<unsigned>(call.shared_bytes);
  node.kernelParams = arguments;
  return node;
}

cudaMemsetParams ZeroNode(const LaunchCall& call) {
  const auto& zero = *static_cast<const ZeroParams*>(call.params);
  cudaMemsetParams node = {};
  node.dst = zero.device;
  node.elementSize = 1;
  node.width = static_cast<size_t>(zero.bytes);
  node.height = 1;
  return node;
}

// A chain of nodes.
class RuntimeGraph final : public Graph {
 public:
  // Null when it cannot be made.
  static std::unique_ptr<RuntimeGraph> Create(
      absl::Span<const LaunchCall> calls, cudaStream_t stream,
      std::function<void(cudaError_t)> note) {
    std::unique_ptr<RuntimeGraph> graph(
        new RuntimeGraph(stream, std::move(note)));
    if (graph->Build(calls)) return graph;
    static_cast<void>(cudaGetLastError());  // an error that stays comes again
    return nullptr;
  }
  ~RuntimeGraph() override {
    // It may be running. Errors are told by what comes next.
    static_cast<void>(cudaStreamSynchronize(stream_));
    if (runs_ != nullptr) static_cast<void>(cudaGraphExecDestroy(runs_));
    if (graph_ != nullptr) static_cast<void>(cudaGraphDestroy(graph_));
  }

  bool SetParams(size_t index, const LaunchCall& call) override {
    cudaError_t error;
    if (call.kernel == nullptr) {
      const cudaMemsetParams node = ZeroNode(call);
      error = cudaGraphExecMemsetNodeSetParams(runs_, nodes_[index], &node);
    } else {
      void* arguments[] = {const_cast<void*>(call.params)};
      const cudaKernelNodeParams node = KernelNode(call, arguments);
      error = cudaGraphExecKernelNodeSetParams(runs_, nodes_[index], &node);
    }
    if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
    return error == cudaSuccess;
  }
  void Launch() override { note_(cudaGraphLaunch(runs_, stream_)); }

 private:
  RuntimeGraph(cudaStream_t stream, std::function<void(cudaError_t)> note)
      : stream_(stream), note_(std::move(note)) {}

  bool Build(absl::Span<const LaunchCall> calls) {
    if (cudaGraphCreate(&graph_, 0) != cudaSuccess) return false;
    for (const LaunchCall& call : calls) {
      if (Add(call) != cudaSuccess) return false;
    }
    // Without memory for it, this fails, not the launch.
    return cudaGraphInstantiateWithFlags(&runs_, graph_, 0) == cudaSuccess &&
           cudaGraphUpload(runs_, stream_) == cudaSuccess;
  }

  cudaError_t Add(const LaunchCall& call) {
    const size_t behind = nodes_.empty() ? 0 : 1;
    const cudaGraphNode_t last = nodes_.empty() ? nullptr : nodes_.back();
    cudaGraphNode_t& added = nodes_.emplace_back();
    if (call.kernel == nullptr) {
      const cudaMemsetParams node = ZeroNode(call);
      return cudaGraphAddMemsetNode(&added, graph_, &last, behind, &node);
    }
    void* arguments[] = {const_cast<void*>(call.params)};
    const cudaKernelNodeParams node = KernelNode(call, arguments);
    return cudaGraphAddKernelNode(&added, graph_, &last, behind, &node);
  }

  const cudaStream_t stream_;
  const std::function<void(cudaError_t)> note_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t runs_ = nullptr;
  std::vector<cudaGraphNode_t> nodes_;
};

class RuntimeDevice final : public Device {
 public:
  RuntimeDevice(int ordinal, const cudaDeviceProp& properties)
      : ordinal_(ordinal),
        name_(properties.name),
        multiprocessors_(properties.multiProcessorCount) {
    Use();
    Check(cudaStreamCreateWithFlags(&steps_, cudaStreamNonBlocking), "stream");
    Check(cudaStreamCreateWithFlags(&fills_, cudaStreamNonBlocking), "stream");
  }
  ~RuntimeDevice() override {
    Use();
    Note(cudaStreamDestroy(steps_), "stream");
    Note(cudaStreamDestroy(fills_), "stream");
  }

  std::string name() const override { return name_; }
  int multiprocessors() const override { return multiprocessors_; }
  int64_t FreeBytes() const override {
    Use();
    size_t free = 0;
    size_t total = 0;
    Note(cudaMemGetInfo(&free, &total), "free memory");
    return static_cast<int64_t>(free);
  }
  absl::Status status() const override {
    MutexLock lock(&mutex_);
    return status_;
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    Use();
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());  // it is told, and over
      return absl::ResourceExhaustedError(
          absl::StrCat("needs ", FormatByteSize(bytes), " of memory of ", name_,
                       ", which has ", FormatByteSize(FreeBytes()), " left"));
    }
    Note(error, "cudaMalloc");
    if (error != cudaSuccess) return status();
    return memory;
  }
  void Free(void* memory) override {
    Use();
    Note(cudaFree(memory), "cudaFree");
  }
  // A device that has failed pins nothing, and a host may be out of memory that
  // can be pinned: copies then take a detour, or are not made at all.
  void* AllocateHost(int64_t bytes) override {
    Use();
    void* memory = nullptr;
    const cudaError_t error =
        cudaMallocHost(&memory, static_cast<size_t>(bytes));
    if (error == cudaSuccess) return memory;
    static_cast<void>(cudaGetLastError());
    if (error != cudaErrorMemoryAllocation) Note(error, "cudaMallocHost");
    memory = ::operator new(static_cast<size_t>(bytes));
    unpinned_.insert(memory);
    return memory;
  }
  void FreeHost(void* memory) override {
    if (unpinned_.erase(memory) == 1) {
      ::operator delete(memory);
      return;
    }
    Use();
    Note(cudaFreeHost(memory), "cudaFreeHost");
  }

  void Fill(const void* host, int64_t bytes, void* device) override {
    Use();
    Note(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes),
                         cudaMemcpyHostToDevice, fills_),
         "copy to the device");
    Note(cudaStreamSynchronize(fills_), "copy to the device");
  }

  void Upload(const void* host, int64_t bytes, void* device) override {
    Note(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes),
                         cudaMemcpyHostToDevice, steps_),
         "copy to the device");
  }
  void Download(const void* device, int64_t bytes, void* host) override {
    Note(cudaMemcpyAsync(host, device, static_cast<size_t>(bytes),
                         cudaMemcpyDeviceToHost, steps_),
         "copy from the device");
  }
  void Zero(void* device, int64_t bytes) override {
    Note(cudaMemsetAsync(device, 0, static_cast<size_t>(bytes), steps_),
         "memset");
  }
  void BeginRange(const char* name) override { nvtxRangePushA(name); }
  void EndRange() override { nvtxRangePop(); }
  void Synchronize() override {
    Use();
    Note(cudaStreamSynchronize(steps_), "a kernel");
  }

  void Issue(const LaunchCall& call) override {
    Use();
    AllowShared(call);
    void* arguments[] = {const_cast<void*>(call.params)};
    Note(cudaLaunchKernel(call.kernel, dim3(static_cast<unsigned>(call.grid)),
                          dim3(static_cast<unsigned>(call.threads)), arguments,
                          static_cast<size_t>(call.shared_bytes), steps_),
         "launch");
  }

  std::unique_ptr<Graph> MakeGraph(
      absl::Span<const LaunchCall> calls) override {
    Use();
    for (const LaunchCall& call : calls) AllowShared(call);
    return RuntimeGraph::Create(calls, steps_, [this](cudaError_t error) {
      Note(error, "launch of a graph");
    });
  }

 private:
  // Over 48 KiB of a block must be asked for, once for each kernel.
  void AllowShared(const LaunchCall& call) {
    int& allowed = allowed_[call.kernel];
    if (call.shared_bytes <= std::max(allowed, 48 << 10)) return;
    allowed = call.shared_bytes;
    Note(cudaFuncSetAttribute(call.kernel,
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              call.shared_bytes),
         "shared memory of a kernel");
  }

  // An error of a launch stays, and every call after it returns one.
  void Note(cudaError_t error, const char* what) const {
    if (error == cudaSuccess) return;
    MutexLock lock(&mutex_);
    if (!status_.ok()) return;
    status_ = absl::UnavailableError(absl::StrCat("cuda:", ordinal_, " (",
                                                  name_, "): ", what, ": ",
                                                  cudaGetErrorString(error)));
  }

  // The device is a matter of each thread; nobody else in the process sets it.
  void Use() const {
    thread_local int used = -1;
    if (used == ordinal_) return;
    Note(cudaSetDevice(ordinal_), "cudaSetDevice");
    used = ordinal_;
  }

  const int ordinal_;
  const std::string name_;
  const int multiprocessors_;
  cudaStream_t steps_ = nullptr;
  cudaStream_t fills_ = nullptr;
  std::map<const void*, int> allowed_;  // [kernel] shared memory, if asked for
  mutable Mutex mutex_;
  mutable absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::set<void*> unpinned_;  // of AllocateHost
};

std::string Version(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(int ordinal) {
  int driver = 0;
  int runtime = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  if (driver == 0) {
    return absl::FailedPreconditionError(
        "no NVIDIA driver: install one, or serve with --device cpu");
  }
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the NVIDIA driver supports CUDA ", Version(driver),
        ", and this build needs ", Version(runtime), ": update the driver"));
  }
  if (error != cudaSuccess || ordinal >= count) {
    static_cast<void>(cudaGetLastError());
    return absl::FailedPreconditionError(
        error == cudaErrorNoDevice || error == cudaSuccess
            ? absl::StrCat("no device cuda:", ordinal, ": there are ", count)
            : absl::StrCat("CUDA: ", cudaGetErrorString(error)));
  }
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, ordinal), "properties");
  if (properties.major < 8) {
    return absl::FailedPreconditionError(absl::StrCat(
        properties.name, " has compute capability ", properties.major, ".",
        properties.minor, "; the kernels need 8.0 or later"));
  }
  return std::make_unique<RuntimeDevice>(ordinal, properties);
}

}  // namespace headcount::cuda
