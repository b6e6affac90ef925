// What the files of a model are, read without loading the model: so that there
// is an answer also for one that cannot be served.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/output.h"
#include "model/model_config.h"

namespace headcount {

// Tensors of one element type.
struct StoredType {
  std::string name;  // as the format spells it: "Q4_1"
  int64_t tensors = 0;
  int64_t bytes = 0;
  bool computed_with = true;  // else no model may need one of them
};

struct ModelFiles {
  std::string path;
  std::string format;                 // "GGUF", "safetensors"; empty: neither
  std::vector<StoredType> types;      // by falling bytes
  int64_t parameters = 0;             // of the types that are computed with
  int64_t bytes = 0;                  // of all tensors
  std::optional<ModelConfig> config;  // absent: not supported
  std::string tokenizer;              // its kind and size; empty: none
  // Why it cannot be served, as far as that shows without loading it.
  std::vector<absl::Status> problems;
};

// `path` as of a model's source: a folder or a file.
ModelFiles ReadModelFiles(const std::string& path);

// For people; ends with a line feed.
std::string RenderModelFiles(const ModelFiles& files);
Json ModelFilesJson(const ModelFiles& files);

}  // namespace headcount
