// The keys of a GGUF file and their values, as views into it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/byte_reader.h"

namespace headcount {

inline constexpr uint64_t kMaxGgufKeys = 65'536;
inline constexpr size_t kMaxGgufKeyBytes = 65'535;  // of the specification

// Copyable; lives as long as the bytes that it was read from. Thread-safe to
// read.
//
// Every getter is NotFound when the key is absent and InvalidArgument when its
// value is of another type; the message starts with the file and names the
// key. Integers of every width and sign are one type, int64.
class GgufMetadata {
 public:
  // Without keys.
  GgufMetadata() = default;

  // Takes `count` keys from `reader`. InvalidArgument, starting with `what` and
  // naming the key, when one is malformed, there twice or an array of arrays.
  // Allocates in proportion to the bytes that are there, whatever `count`.
  static absl::StatusOr<GgufMetadata> Read(ByteReader& reader, uint64_t count,
                                           const std::string& what);

  bool Has(std::string_view key) const;
  // False of a scalar, and where there is no such key.
  bool IsArray(std::string_view key) const;
  // All of them, by name; they lie in the file.
  std::vector<std::string_view> keys() const;

  // What the file is called in errors, and an InvalidArgument about `key`.
  const std::string& what() const { return what_; }
  absl::Status Invalid(std::string_view key, std::string_view message) const;

  absl::StatusOr<int64_t> Int(std::string_view key) const;
  // A float or an integer.
  absl::StatusOr<double> Number(std::string_view key) const;
  absl::StatusOr<bool> Bool(std::string_view key) const;
  absl::StatusOr<std::string> String(std::string_view key) const;

  // Arrays; a scalar is an array of one. The strings lie in the file.
  absl::StatusOr<std::vector<std::string_view>> Strings(
      std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> Ints(std::string_view key) const;
  absl::StatusOr<std::vector<double>> Numbers(std::string_view key) const;

  // Type and value of `key`, byte for byte as the file has them.
  absl::StatusOr<std::string> Encoded(std::string_view key) const;

 private:
  // As the file numbers them.
  enum class Type : uint32_t {
    kUint8,
    kInt8,
    kUint16,
    kInt16,
    kUint32,
    kInt32,
    kFloat32,
    kBool,
    kString,
    kArray,
    kUint64,
    kInt64,
    kFloat64,
  };

  // A scalar is an array of one.
  struct Value {
    Type type = Type::kUint8;  // of an element
    bool is_array = false;
    uint64_t count = 0;
    absl::Span<const std::byte> bytes;  // `count` elements, checked
  };

  static size_t BytesOf(Type type);  // 0: of no fixed size
  static const char* NameOf(Type type);
  static bool IsInteger(Type type);
  static bool IsNumber(Type type);
  static bool IsBool(Type type);
  static bool IsString(Type type);
  static std::string Describe(const Value& value);
  static absl::StatusOr<Value> ReadValue(ByteReader& reader);

  // The value of `key`, when `wanted` accepts its element type.
  absl::StatusOr<const Value*> Find(std::string_view key, const char* wanted,
                                    bool (*accepts)(Type),
                                    bool may_be_array) const;
  // Element `i` of an array of integers or floats.
  absl::StatusOr<int64_t> IntAt(std::string_view key, const Value& value,
                                uint64_t i) const;
  static double NumberAt(const Value& value, uint64_t i);

  std::string what_;
  std::map<std::string_view, Value, std::less<>> values_;
};

}  // namespace headcount
