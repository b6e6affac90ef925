#include "model/output_repair.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "format/quoted.h"
#include "model/at_path.h"

namespace headcount {
namespace {

std::string NameOf(size_t layer, const char* what) {
  return absl::StrCat("layers.", layer, ".o_proj.", what);
}

// Of a tensor that may be absent.
absl::Status CheckTensor(const std::string& name, const TensorView* tensor,
                         const std::vector<int64_t>& shape,
                         std::set<std::string>* known) {
  known->insert(name);
  if (tensor == nullptr) return absl::OkStatus();
  if (tensor->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", name, " has shape [", absl::StrJoin(tensor->shape, ", "),
        "], but the heads that are kept imply [", absl::StrJoin(shape, ", "),
        "]"));
  }
  if (tensor->dtype == ElementType::kF32 ||
      tensor->dtype == ElementType::kF16) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", name, " is stored as ",
                   std::string(ElementTypeName(tensor->dtype)),
                   ", but has to be F32 or F16"));
}

}  // namespace

absl::StatusOr<OutputRepair> OutputRepair::Open(const std::string& path,
                                                const HeadLayout& layout,
                                                int32_t hidden) {
  absl::StatusOr<Checkpoint> tensors = Checkpoint::Open(path);
  if (!tensors.ok()) return tensors.status();
  OutputRepair repair(*std::move(tensors));
  const absl::Status status = repair.Check(layout, hidden);
  if (!status.ok()) return AtPath(path, status);
  return repair;
}

absl::Status OutputRepair::Check(const HeadLayout& layout,
                                 int32_t hidden) const {
  std::set<std::string> known;
  for (size_t layer = 0; layer < layout.layers().size(); ++layer) {
    const auto width =
        static_cast<int64_t>(layout.layers()[layer].query_heads.size()) *
        layout.head_dim();
    absl::Status status = CheckTensor(NameOf(layer, kWeight), weight(layer),
                                      {hidden, width}, &known);
    if (!status.ok()) return status;
    status = CheckTensor(NameOf(layer, kBias), bias(layer), {hidden}, &known);
    if (!status.ok()) return status;
  }
  std::set<std::string> names;  // so that the same one is reported each time
  for (const auto& [name, tensor] : tensors_.tensors()) names.insert(name);
  for (const auto& [name, tensor] : tensors_.unread()) names.insert(name);
  if (names.empty()) {
    return absl::InvalidArgumentError("has no tensors, so it repairs nothing");
  }
  for (const std::string& name : names) {
    if (tensors_.Find(name) != nullptr && known.contains(name)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", Quoted(name), " is not of a repair: those are ",
        NameOf(0, kWeight), " and ", NameOf(0, kBias), " of any of the ",
        layout.layers().size(), " layers, F32 or F16"));
  }
  return absl::OkStatus();
}

const TensorView* OutputRepair::Find(size_t layer, const char* what) const {
  return tensors_.Find(NameOf(layer, what));
}

}  // namespace headcount
