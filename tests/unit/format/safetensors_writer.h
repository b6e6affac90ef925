// Writes safetensors files, good ones and, with a header of one's own, others.
// It shares nothing with the parser.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace headcount {

// The length, `header` and `data_bytes` bytes of data.
inline std::string SafetensorsFile(uint64_t length, std::string_view header,
                                   size_t data_bytes = 0) {
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  }
  file.append(header);
  file.append(data_bytes, 'd');
  return file;
}

inline std::string SafetensorsFile(std::string_view header, size_t data_bytes) {
  return SafetensorsFile(header.size(), header, data_bytes);
}

class SafetensorsWriter {
 public:
  // `shape` as in the header: "2, 3". Names and dtypes without quotes in them.
  void Add(std::string_view name, std::string_view dtype,
           std::string_view shape, std::string_view bytes) {
    header_.append(header_.empty() ? "{\"" : ",\"").append(name);
    header_.append("\":{\"dtype\":\"").append(dtype);
    header_.append("\",\"shape\":[").append(shape);
    header_.append("],\"data_offsets\":[" + std::to_string(data_.size()));
    data_.append(bytes);
    header_.append("," + std::to_string(data_.size()) + "]}");
  }

  std::string File() const {
    const std::string header = header_ + "}";
    return SafetensorsFile(header, 0) + data_;
  }

 private:
  std::string header_;
  std::string data_;
};

}  // namespace headcount
