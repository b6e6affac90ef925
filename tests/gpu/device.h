// The device that kernel tests run on: a GPU (device_cuda.cc), or the emulator
// of tests/simt (device_simt.cc). One of the two is linked. A test cannot go on
// when the device fails, so that ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cuda/device.h"
#include "base/check.h"

namespace headcount::gpu {

// Without launches, an emulated device computes nothing.
std::unique_ptr<cuda::Device> OpenTestDevice(bool launches = true);
// Of the blocks that decode kernels are launched with.
int Workers();
// Whether kernels with cp.async in place of bulk copies can be asked for.
bool IsEmulator();
// How often memory was allocated or a graph made, of the emulator; else 0.
int64_t TestAllocations();

inline cuda::Device& TheDevice() {
  static cuda::Device& device = *OpenTestDevice().release();
  return device;
}

// Runs a kernel and waits for its end.
template <class Params>
void Launch(void (*kernel)(const Params), int grid, int threads,
            int shared_bytes, const Params& params) {
  TheDevice().Launch(cuda::Kernel<Params>{kernel, threads, shared_bytes}, grid,
                     params);
  TheDevice().Synchronize();
}

// Device memory with a copy of `values`, or room for `count` of them whose
// bytes are all ones (no number, as floating point).
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    Allocate();
    if (count_ > 0) TheDevice().Fill(values.data(), bytes(), data_);
  }
  explicit DeviceArray(size_t count) : count_(count) {
    Allocate();
    const std::vector<unsigned char> ones(static_cast<size_t>(bytes()), 0xFF);
    if (count_ > 0) TheDevice().Fill(ones.data(), bytes(), data_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { TheDevice().Free(data_); }

  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> values(count_);
    if (count_ > 0) TheDevice().Download(data_, bytes(), values.data());
    TheDevice().Synchronize();
    return values;
  }

 private:
  void Allocate() {
    absl::StatusOr<void*> memory = TheDevice().Allocate(bytes() + 1);
    CHECK(memory.ok()) << memory.status();
    data_ = static_cast<T*>(*memory);
  }
  int64_t bytes() const { return static_cast<int64_t>(count_ * sizeof(T)); }

  size_t count_;
  T* data_ = nullptr;
};

}  // namespace headcount::gpu
