// Memory of a device that is given back with its handle, and memory that grows
// to the most that was ever asked for, so that steps soon allocate nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace headcount::cuda {

class DeviceBuffer final : public Buffer {
 public:
  // ResourceExhausted when there is no room. `device` outlives the buffer.
  static absl::StatusOr<std::unique_ptr<DeviceBuffer>> Create(Device* device,
                                                              int64_t bytes);
  ~DeviceBuffer() override { device_->Free(data_); }

  void* data() override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  DeviceBuffer(Device* device, void* data, int64_t bytes)
      : device_(device), data_(data), bytes_(bytes) {}

  Device* const device_;
  void* const data_;
  const int64_t bytes_;
};

// Scratch memory of steps, kept once it is there. Not thread-safe.
class GrowingMemory {
 public:
  explicit GrowingMemory(Device* device) : device_(device) {}
  GrowingMemory(const GrowingMemory&) = delete;
  GrowingMemory& operator=(const GrowingMemory&) = delete;
  ~GrowingMemory();

  // Makes room for so many bytes. If it has to, contents are lost and all
  // launches have ended. ResourceExhausted, or the device's error: it is as
  // large as before, and contents are there.
  absl::Status Reserve(int64_t bytes);
  // The same for what a step needs beyond what was reserved, a little. Whether
  // it had to; CHECKs that there is room. On a device that has failed it may
  // stay as it is: launches do nothing there.
  bool Grow(int64_t bytes);
  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  Device* const device_;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// What the host hands to a step: arrays, one behind the other, put together in
// memory of the host and brought to the device in one copy. Not thread-safe.
//
// Each takes one of few sizes, so that from one step to the next places mostly
// stay where they were, and with them the arguments of launches
// (graph_device.h), though tables grow. Add those first that do not.
class StepUpload {
 public:
  explicit StepUpload(Device* device) : device_(device), there_(device) {}
  StepUpload(const StepUpload&) = delete;
  StepUpload& operator=(const StepUpload&) = delete;
  ~StepUpload();

  // Forgets what was added. The last Send's copy must be done.
  void Clear() { size_ = 0; }
  // Where `values` will be on the device: an argument of At, not an address,
  // since more may be added. At a multiple of 16 bytes.
  template <class T>
  int64_t Add(absl::Span<const T> values) {
    return AddBytes(values.data(), values.size() * sizeof(T));
  }
  template <class T>
  int64_t Add(const std::vector<T>& values) {
    return Add(absl::Span<const T>(values));
  }
  void Send();
  // After Send.
  template <class T>
  const T* At(int64_t place) const {
    return reinterpret_cast<const T*>(there_.data<std::byte>() + place);
  }
  int64_t bytes() const { return size_; }

 private:
  int64_t AddBytes(const void* values, size_t bytes);

  Device* const device_;
  std::byte* here_ = nullptr;
  int64_t capacity_ = 0;
  int64_t size_ = 0;
  GrowingMemory there_;
};

}  // namespace headcount::cuda
