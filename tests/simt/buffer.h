// Global memory for kernels: poisoned, with margins that must not be touched.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

namespace headcount::simt {
namespace internal {

// Bytes, all 0xFF, between two margins. A wrapper of ptx.h that touches a
// margin fails; so does any access under AddressSanitizer. What was written to
// a margin fails when the buffer ends.
class Memory {
 public:
  static constexpr size_t kMarginBytes = 1024;

  explicit Memory(size_t bytes);
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  // 128-byte aligned.
  unsigned char* data() const { return data_; }

  // Whether [address, address + bytes) touches a margin of a buffer.
  static bool TouchesMargin(const void* address, size_t bytes);

 private:
  size_t bytes_;
  unsigned char* allocated_;
  unsigned char* data_;
};

}  // namespace internal

// `size` elements that nobody has written.
template <typename T>
class Buffer {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  explicit Buffer(size_t size) : size_(size), memory_(size * sizeof(T)) {}
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    for (size_t i = 0; i < size_; ++i) data()[i] = values[i];
  }

  T* data() { return reinterpret_cast<T*>(memory_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.data()); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  std::span<T> span() { return {data(), size_}; }
  std::vector<T> ToVector() const { return {begin(), end()}; }

 private:
  size_t size_;
  internal::Memory memory_;
};

}  // namespace headcount::simt
