// Writes GGUF files, good ones and, from parts of one's own, others. It shares
// nothing with the parser.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace headcount {

// The types of a value (enum gguf_metadata_value_type).
enum GgufType : uint32_t {
  kGgufUint8,
  kGgufInt8,
  kGgufUint16,
  kGgufInt16,
  kGgufUint32,
  kGgufInt32,
  kGgufFloat32,
  kGgufBool,
  kGgufString,
  kGgufArray,
  kGgufUint64,
  kGgufInt64,
  kGgufFloat64,
};

// The bytes of a number, little-endian as this machine is.
template <typename T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline std::string GgufText(std::string_view text) {
  return Bytes<uint64_t>(text.size()) + std::string(text);
}

// Key, type and `value` as it stands.
inline std::string GgufKey(std::string_view key, uint32_t type,
                           std::string_view value) {
  return GgufText(key) + Bytes(type) + std::string(value);
}

// An array of `count` elements of `type`, whose bytes are `elements`.
inline std::string GgufArrayKey(std::string_view key, uint32_t type,
                                uint64_t count, std::string_view elements) {
  return GgufKey(key, kGgufArray,
                 Bytes(type) + Bytes(count) + std::string(elements));
}

// `dims` are in the file's order: the row length first.
inline std::string GgufTensor(std::string_view name,
                              const std::vector<uint64_t>& dims, uint32_t type,
                              uint64_t offset) {
  std::string info = GgufText(name) + Bytes(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) info += Bytes(dim);
  return info + Bytes(type) + Bytes(offset);
}

inline std::string GgufHeader(uint32_t version, uint64_t num_tensors,
                              uint64_t num_keys) {
  return "GGUF" + Bytes(version) + Bytes(num_tensors) + Bytes(num_keys);
}

class GgufWriter {
 public:
  void AddString(std::string_view key, std::string_view text) {
    AddKey(GgufKey(key, kGgufString, GgufText(text)));
  }
  void AddInt(std::string_view key, uint32_t value) {
    AddKey(GgufKey(key, kGgufUint32, Bytes(value)));
  }
  void AddFloat(std::string_view key, float value) {
    AddKey(GgufKey(key, kGgufFloat32, Bytes(value)));
  }
  void AddBool(std::string_view key, bool value) {
    AddKey(GgufKey(key, kGgufBool, Bytes<uint8_t>(value ? 1 : 0)));
  }
  void AddInts(std::string_view key, const std::vector<int32_t>& values) {
    std::string elements;
    for (const int32_t value : values) elements += Bytes(value);
    AddKey(GgufArrayKey(key, kGgufInt32, values.size(), elements));
  }
  void AddStrings(std::string_view key, const std::vector<std::string>& texts) {
    std::string elements;
    for (const std::string& text : texts) elements += GgufText(text);
    AddKey(GgufArrayKey(key, kGgufString, texts.size(), elements));
  }
  // What GgufKey or GgufArrayKey returned.
  void AddKey(std::string_view key) {
    keys_ += key;
    ++num_keys_;
  }

  void AddTensor(std::string_view name, const std::vector<uint64_t>& dims,
                 uint32_t type, std::string_view bytes) {
    infos_ += GgufTensor(name, dims, type, data_.size());
    data_ += bytes;
    Pad(data_);
    ++num_tensors_;
  }

  std::string File(uint32_t version = 3) const {
    std::string file =
        GgufHeader(version, num_tensors_, num_keys_) + keys_ + infos_;
    Pad(file);
    return file + data_;
  }

 private:
  static void Pad(std::string& bytes) {
    bytes.append((32 - bytes.size() % 32) % 32, '\0');
  }

  std::string keys_;
  std::string infos_;
  std::string data_;
  uint64_t num_keys_ = 0;
  uint64_t num_tensors_ = 0;
};

}  // namespace headcount
