// Small models, masks for them, and what is computed with either.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "export/export.h"
#include "model/model.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {

std::string TinyModel(const std::string& name);

// Every layer loses each of its heads with a chance of its own; the one of
// `round` mod 4 loses all. Groups get ragged.
HeadMask RandomHeads(const ModelConfig& config, uint32_t round);

// Whole groups, from none to all, but for layer 0, which keeps one at least.
HeadMask RandomGroups(const ModelConfig& config, uint32_t round);

// The logits after each of 40 tokens, on the CPU's own kernels with float32
// pages.
std::vector<LogitsRow> LogitsOf(const std::string& path,
                                const HeadMask& mask = {},
                                const std::string& mask_file = "");

// A float32 tensor of small numbers, all sorts of them.
WritableTensor Ramp(const std::vector<int64_t>& shape);

// The path of a mask file with a repair, both in `folder`, for a tiny model:
// layer 0 loses heads 0 and 3, layer 1 all.
std::string MaskFileWithRepair(const std::string& name,
                               const WritableTensors& repair,
                               const TemporaryDirectory& folder);

// A tiny model in a folder of its own with a byte-level tokenizer.
class ModelWithTokenizer {
 public:
  explicit ModelWithTokenizer(const std::string& name);
  explicit ModelWithTokenizer(const WritableModel& model);

  const std::string& path() const { return folder_.path(); }
  const TemporaryDirectory& folder() const { return folder_; }

 private:
  TemporaryDirectory folder_;
};

}  // namespace headcount
