// A model with pruned heads as GGUF says it, for llama.cpp to run: which
// architecture, which keys, and what cannot be said.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/gguf_metadata.h"
#include "format/write_gguf.h"
#include "model/pruned_checkpoint.h"

namespace headcount {

// llama.cpp's name of the architecture that can say it: that of the model if
// all layers keep as many heads, else `deci`, whose heads are counted layer by
// layer. InvalidArgument, naming the layer and the reason, when there is none:
//
//  - query heads of a layer are shared out unevenly over its KV heads;
//  - a layer sees a window only, or has norms of queries and keys (`deci`);
//  - layer 0 has no heads: llama.cpp takes the size of a head from there;
//  - a layer without heads that adds a bias, or one with heads and without a
//    feed-forward network: llama.cpp leaves out what they add.
absl::StatusOr<std::string> GgufArchitectureOf(const PrunedCheckpoint& source);

// Whether pairs of rotated rows lie together in files of that architecture.
bool HasPairedRows(const std::string& architecture);

// Keys of the model, without its tokenizer, from its configuration.
// InvalidArgument for a rotation that has no keys.
absl::StatusOr<GgufKeys> KeysOf(const PrunedCheckpoint& source,
                                const std::string& architecture);

// The same of a model that is GGUF: its own keys, tokenizer included, but for
// what the mask changes.
absl::StatusOr<GgufKeys> KeysFrom(const GgufMetadata& metadata,
                                  const PrunedCheckpoint& source,
                                  const std::string& architecture);

}  // namespace headcount
