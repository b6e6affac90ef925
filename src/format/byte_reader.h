// Walks over bytes that nobody vouches for.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include "absl/types/span.h"

namespace headcount {

// Each Read takes what it returns, or is absent and takes nothing when less is
// left. Numbers are little-endian. What is returned lies in the bytes walked
// over.
class ByteReader {
 public:
  explicit ByteReader(absl::Span<const std::byte> bytes) : rest_(bytes) {}

  template <typename T>
  requires std::integral<T> || std::floating_point<T> std::optional<T> Read() {
    const auto bytes = ReadBytes(sizeof(T));
    if (!bytes) return std::nullopt;
    T value{};
    std::memcpy(&value, bytes->data(), sizeof(T));
    return value;
  }

  std::optional<absl::Span<const std::byte>> ReadBytes(uint64_t count) {
    if (count > rest_.size()) return std::nullopt;
    const auto bytes = rest_.first(static_cast<size_t>(count));
    rest_.remove_prefix(bytes.size());
    return bytes;
  }

  // 64 bits of length, then the text.
  std::optional<std::string_view> ReadString() {
    ByteReader ahead = *this;
    const auto length = ahead.Read<uint64_t>();
    const auto text = length ? ahead.ReadBytes(*length) : std::nullopt;
    if (!text) return std::nullopt;
    *this = ahead;
    return std::string_view(reinterpret_cast<const char*>(text->data()),
                            text->size());
  }

  absl::Span<const std::byte> rest() const { return rest_; }

 private:
  absl::Span<const std::byte> rest_;
};

}  // namespace headcount
