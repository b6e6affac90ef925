// Memory of the CPU backend, straight from the kernel: zero, and resident only
// where it was written. Large buffers are on huge pages, where the kernel has
// them: weights and KV pages are read in an order that would otherwise miss the
// translation cache at every page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "backend/backend.h"

namespace headcount {

class HostBuffer final : public Buffer {
 public:
  // ResourceExhausted when the kernel refuses.
  static absl::StatusOr<std::unique_ptr<HostBuffer>> Create(int64_t bytes);
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() override;

  void* data() override { return data_; }
  const void* data() const { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  HostBuffer(void* mapping, size_t mapped_bytes, void* data, int64_t bytes)
      : mapping_(mapping),
        mapped_bytes_(mapped_bytes),
        data_(data),
        bytes_(bytes) {}

  void* mapping_;  // holds data_, which may start on a huge page
  size_t mapped_bytes_;
  void* data_;
  int64_t bytes_;
};

}  // namespace headcount
