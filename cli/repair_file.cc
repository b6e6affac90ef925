#include "cli/repair_file.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "format/write_safetensors.h"

namespace headcount {
namespace {

// `values` outlives the result.
TensorToWrite FloatTensor(const std::string& name, std::vector<int64_t> shape,
                          const std::vector<float>& values) {
  const size_t row = values.size() / static_cast<size_t>(shape.front());
  return {.name = name,
          .dtype = ElementType::kF32,
          .shape = std::move(shape),
          .read = [&values, row](int64_t first, int64_t count, std::byte* out) {
            std::memcpy(out, values.data() + static_cast<size_t>(first) * row,
                        static_cast<size_t>(count) * row * sizeof(float));
          }};
}

}  // namespace

absl::Status WriteRepair(const std::string& path,
                         const std::vector<LayerRepair>& repair) {
  std::vector<TensorToWrite> tensors;
  for (const LayerRepair& layer : repair) {
    const OutputProjection& projection = layer.projection;
    const std::string name = absl::StrCat("layers.", layer.layer, ".o_proj.");
    const int64_t hidden = projection.hidden;
    if (!projection.weight.empty()) {
      const auto size = static_cast<int64_t>(projection.weight.size());
      tensors.push_back(FloatTensor(name + "weight", {hidden, size / hidden},
                                    projection.weight));
    }
    tensors.push_back(FloatTensor(name + "bias", {hidden}, projection.bias));
  }
  return WriteSafetensors(path, tensors, /*progress=*/nullptr);
}

}  // namespace headcount
