// A safetensors file from tensors (the format: format/safetensors.h).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "format/tensor_to_write.h"

namespace headcount {

// In the order given, with the metadata that transformers asks for. A file of
// that name is replaced, once all is written. InvalidArgument, naming the
// tensor, for a type that the format does not have (quantised ones), and as
// BytesOf; errors of the disk name `path`.
absl::Status WriteSafetensors(const std::string& path,
                              absl::Span<const TensorToWrite> tensors,
                              const WriteProgress& progress);

}  // namespace headcount
