// Copies of models with changes, on disk, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "format/checkpoint.h"
#include "nlohmann/json.hpp"

namespace headcount {

// A directory that is gone with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  const std::string& path() const { return path_; }
  // A file in it.
  void Write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

struct WritableTensor {
  ElementType dtype = ElementType::kF32;
  std::vector<int64_t> shape;  // of one or two dimensions
  std::string data;

  int64_t rows() const { return shape.front(); }
  int64_t cols() const { return shape.size() == 1 ? 1 : shape[1]; }
  // Sets every byte of a block of elements: 0 gives 0.0, 0xFF NaN.
  void Fill(int64_t first_row, int64_t num_rows, int64_t first_col,
            int64_t num_cols, unsigned char byte);
};

using WritableTensors = std::map<std::string, WritableTensor>;

// A safetensors file.
std::string SafetensorsOf(const WritableTensors& tensors);

struct WritableModel {
  nlohmann::json config;
  WritableTensors tensors;

  // Aborts when there is no such model.
  static WritableModel ReadFrom(const std::string& directory);
  // config.json and model.safetensors.
  void WriteTo(const TemporaryDirectory& directory) const;
};

}  // namespace headcount
