#include "heads/kv_dtype.h"

#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace headcount {
namespace {

constexpr std::array<std::pair<KvDtype, std::string_view>, 6> kNames = {{
    {KvDtype::kF32, "f32"},
    {KvDtype::kF16, "f16"},
    {KvDtype::kBf16, "bf16"},
    {KvDtype::kFp8E4m3, "fp8_e4m3"},
    {KvDtype::kInt8, "int8"},
    {KvDtype::kInt4, "int4"},
}};

}  // namespace

std::string_view KvDtypeName(KvDtype dtype) {
  for (const auto& [known, name] : kNames) {
    if (known == dtype) return name;
  }
  return "";
}

absl::StatusOr<KvDtype> ParseKvDtype(std::string_view name) {
  std::string known;
  for (const auto& [dtype, dtype_name] : kNames) {
    if (dtype_name == name) return dtype;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(dtype_name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", std::string(name.substr(0, 64)),
                   "\" is not a KV dtype; known: ", known));
}

}  // namespace headcount
