// A model with pruned heads as files of its own, in which what was pruned is
// not there any more.
//
//   absl::StatusOr<ExportReport> report = Export(
//       {.source = {.path = "models/mailroom", .mask_file = "heads.json"},
//        .out = "mailroom-half"});
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "format/tensor_to_write.h"
#include "model/pruned_checkpoint.h"

namespace headcount {

enum class ExportFormat { kSafetensors, kGguf };

struct ExportOptions {
  PrunedSource source;
  std::string out;  // a folder, or the name of a GGUF file
  ExportFormat format = ExportFormat::kSafetensors;
  bool force = false;  // write over what is there
  // More files for the folder, made when the heads are known: names and texts.
  // Null: none.
  std::function<
      absl::StatusOr<std::vector<std::pair<std::string, std::string>>>(
          const HeadLayout& layout)>
      more_files = nullptr;
  WriteProgress progress = nullptr;
};

struct ExportReport {
  std::string architecture;            // as the output names it
  int64_t query_heads[2] = {};         // of the source's weights, exported
  int64_t kv_heads[2] = {};            // the same
  int64_t kv_bytes_per_token[2] = {};  // the same, at 16 bits
  int64_t weight_bytes[2] = {};        // the same
  std::vector<std::string> notes;      // what is not as it was, for people
};

// Writes all of it or nothing: a folder with config.json, model.safetensors and
// the source's tokenizer and generation files, or a GGUF file. The result is
// the model with its mask: the same logits to the bit, unless a note says that
// a tensor has another type.
//
// InvalidArgument for what OpenPruned refuses, for what the format cannot say
// (GgufArchitectureOf, SlicedConfig, AddTokenizerKeys; safetensors from a GGUF
// source), and for an `out` that is the source itself; AlreadyExists for any
// other that is there, without `force`.
absl::StatusOr<ExportReport> Export(const ExportOptions& options);

}  // namespace headcount
