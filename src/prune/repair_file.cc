#include "prune/repair_file.h"

#include <bit>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace headcount {
namespace {

// Eight bytes of length, the header in JSON, the data
// (github.com/huggingface/safetensors, "Format").
class Tensors {
 public:
  void Add(const std::string& name, const std::string& shape,
           const std::vector<float>& values) {
    absl::StrAppend(&header_, header_.empty() ? "{" : ",", "\"", name,
                    "\":{\"dtype\":\"F32\",\"shape\":[", shape,
                    "],\"data_offsets\":[", data_.size(), ",",
                    data_.size() + values.size() * sizeof(float), "]}");
    static_assert(std::endian::native == std::endian::little);
    data_.append(reinterpret_cast<const char*>(values.data()),
                 values.size() * sizeof(float));
  }

  std::string File() const {
    std::string header = header_ + "}";
    // So that the data are aligned.
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string file;
    for (int i = 0; i < 8; ++i) {
      file.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
    }
    return file + header + data_;
  }

 private:
  std::string header_;
  std::string data_;
};

}  // namespace

std::string RepairFile(const std::vector<LayerRepair>& repair) {
  Tensors tensors;
  for (const LayerRepair& layer : repair) {
    const OutputProjection& projection = layer.projection;
    const std::string name = absl::StrCat("layers.", layer.layer, ".o_proj.");
    const int64_t hidden = projection.hidden;
    if (!projection.weight.empty()) {
      const int64_t width =
          static_cast<int64_t>(projection.weight.size()) / hidden;
      tensors.Add(name + "weight", absl::StrCat(hidden, ",", width),
                  projection.weight);
    }
    tensors.Add(name + "bias", absl::StrCat(hidden), projection.bias);
  }
  return tensors.File();
}

}  // namespace headcount
