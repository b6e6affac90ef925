#include "tests/unit/model/checkpoint_writer.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/check.h"
#include "format/json.h"

namespace headcount {

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern =
      std::filesystem::temp_directory_path().string() + "/headcount_XXXXXX";
  CHECK(mkdtemp(pattern.data()) != nullptr) << pattern;
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TemporaryDirectory::Write(const std::string& name,
                               const std::string& content) const {
  std::ofstream file(path_ + "/" + name, std::ios::binary);
  file << content;
  CHECK(file.good()) << path_ << "/" << name;
}

void WritableTensor::Fill(int64_t first_row, int64_t num_rows,
                          int64_t first_col, int64_t num_cols,
                          unsigned char byte) {
  const int64_t element = ElementBytes(dtype, 1);
  for (int64_t row = first_row; row < first_row + num_rows; ++row) {
    std::fill_n(data.begin() + (row * cols() + first_col) * element,
                num_cols * element, static_cast<char>(byte));
  }
}

WritableModel WritableModel::ReadFrom(const std::string& directory) {
  WritableModel model;
  absl::StatusOr<nlohmann::json> config =
      ReadJsonFile(directory + "/config.json");
  CHECK(config.ok()) << config.status();
  model.config = *std::move(config);
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  CHECK(checkpoint.ok()) << checkpoint.status();
  for (const auto& [name, view] : checkpoint->tensors()) {
    model.tensors[name] = {
        view.dtype, view.shape,
        std::string(reinterpret_cast<const char*>(view.data.data()),
                    view.data.size())};
  }
  return model;
}

std::string SafetensorsOf(const WritableTensors& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    nlohmann::json& entry = header[name];
    entry["dtype"] = std::string(ElementTypeName(tensor.dtype));
    entry["shape"] = tensor.shape;
    const std::vector<size_t> offsets = {data.size(),
                                         data.size() + tensor.data.size()};
    entry["data_offsets"] = offsets;
    data += tensor.data;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file.push_back(static_cast<char>(text.size() >> (8 * i) & 0xFF));
  }
  return file + text + data;
}

void WritableModel::WriteTo(const TemporaryDirectory& directory) const {
  directory.Write("model.safetensors", SafetensorsOf(tensors));
  directory.Write("config.json", config.dump());
}

}  // namespace headcount
