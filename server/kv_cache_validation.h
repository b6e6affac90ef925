// The rules of a model's `kv_cache` that need no file.
#pragma once

#include "absl/status/status.h"
#include "headcount/config/v1/config.pb.h"

namespace headcount {

// InvalidArgument, naming the key. Whether the model has the layers and heads
// that are named is for it to say.
absl::Status CheckKvCache(const config::v1::ModelSpec& spec);

}  // namespace headcount
