// The post_processor of a tokenizer.json: what goes around a text.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"
#include "text/text_pipeline.h"

namespace headcount {

// Sets prefix and suffix. InvalidArgument, naming the field, for what is
// malformed or not supported.
absl::Status ReadPostProcessor(const nlohmann::json& root,
                               int32_t max_vocabulary, TextPipeline& pipeline);

}  // namespace headcount
