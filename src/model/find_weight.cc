#include "model/find_weight.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace headcount {

absl::StatusOr<const TensorView*> FindWeight(
    const Checkpoint& checkpoint, const WeightNames& names,
    const std::string& name, const std::vector<int64_t>& shape) {
  const TensorView* tensor = checkpoint.Find(name);
  if (tensor == nullptr) {
    const auto unread = checkpoint.unread().find(name);
    return absl::InvalidArgumentError(
        unread == checkpoint.unread().end()
            ? absl::StrCat("tensor ", name, " is missing; ", names.config,
                           " one of shape [", absl::StrJoin(shape, ", "), "]")
            : absl::StrCat("tensor ", name, " is stored as ",
                           std::string(unread->second.type_name),
                           ", which is not supported"));
  }
  if (tensor->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", name, " has shape [", absl::StrJoin(tensor->shape, ", "),
        "], but ", names.config, " [", absl::StrJoin(shape, ", "), "]"));
  }
  if (shape.size() == 1 && IsQuantized(tensor->dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " is stored as ",
                     std::string(ElementTypeName(tensor->dtype)),
                     ", but a vector has to be F32, F16 or BF16"));
  }
  return tensor;
}

}  // namespace headcount
