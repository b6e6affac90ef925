#include "server/kv_cache_validation.h"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/human.h"
#include "heads/head_mask.h"
#include "heads/kv_dtype.h"
#include "heads/kv_geometry.h"
#include "server/config.h"
#include "server/config_checks.h"

namespace headcount {
namespace {

// Whether there is room for it beside others is the pool's to say.
absl::Status CheckQuota(const config::v1::Quota& quota) {
  const auto check = [](const char* path, const std::string& text) {
    return text.empty() ? absl::OkStatus() : CheckByteSize(path, text);
  };
  absl::Status status = check("kv_cache.quota.min", quota.min());
  if (status.ok()) status = check("kv_cache.quota.max", quota.max());
  if (!status.ok() || quota.min().empty() || quota.max().empty()) return status;
  if (*ParseByteSize(quota.min()) > *ParseByteSize(quota.max())) {
    return Invalid("kv_cache.quota.min",
                   absl::StrCat(quota.min(), " is over kv_cache.quota.max, ",
                                quota.max()));
  }
  return absl::OkStatus();
}

absl::Status CheckKvDtype(absl::string_view path, const std::string& dtype,
                          const std::string& precision) {
  const absl::StatusOr<KvDtype> parsed = ParseKvDtype(dtype);
  if (!parsed.ok()) return Invalid(path, parsed.status().message());
  if (precision == "exact" && *parsed != KvDtype::kF32) {
    return Invalid(path, absl::StrCat("'", dtype,
                                      "' contradicts precision: exact, which "
                                      "keeps the cache in f32"));
  }
  return absl::OkStatus();
}

absl::Status CheckStreaming(const std::string& path,
                            const config::v1::Streaming& streaming) {
  if (streaming.recent() < 1) {
    return Invalid(path + ".recent",
                   absl::StrCat(streaming.recent(),
                                " tokens; how many of the last ones are kept, "
                                "at least 1"));
  }
  if (streaming.sink() < 0 || streaming.sink() % kBlockTokens != 0) {
    return Invalid(path + ".sink",
                   absl::StrCat(streaming.sink(),
                                " tokens; how many of the first ones are kept, "
                                "a multiple of ",
                                kBlockTokens));
  }
  return absl::OkStatus();
}

// Entry `index` of kv_cache.heads; `seen`: the entry of each head of a layer
// that earlier ones have named. Whether the model has them is for it to say.
absl::Status CheckKvHeads(const config::v1::ModelSpec& spec, int index,
                          std::map<std::pair<int, int>, int>* seen) {
  const config::v1::KvHeads& entry = spec.kv_cache().heads(index);
  const std::string path = absl::StrCat("kv_cache.heads[", index, "]");
  if (!entry.has_layer() || entry.layer() < 0) {
    return Invalid(path + ".layer", entry.has_layer()
                                        ? "layers count from 0"
                                        : "missing; layers count from 0");
  }
  if (entry.kv_heads().empty()) {
    return Invalid(path + ".kv_heads", "missing; a list such as [0, 2-3]");
  }
  std::set<int> heads;
  for (int i = 0; i < entry.kv_heads_size(); ++i) {
    const absl::Status status = ParseHeadRange(entry.kv_heads(i), &heads);
    if (!status.ok()) {
      return Invalid(absl::StrCat(path, ".kv_heads[", i, "]"),
                     status.message());
    }
  }
  for (const int head : heads) {
    const auto [other, is_new] = seen->insert({{entry.layer(), head}, index});
    if (is_new) continue;
    return Invalid(
        path + ".kv_heads",
        absl::StrCat("KV head ", head, " of layer ", entry.layer(),
                     " is in kv_cache.heads[", other->second, "], too"));
  }
  if (entry.dtype().empty() && !entry.has_streaming()) {
    return Invalid(path,
                   "has neither dtype nor streaming: these heads would "
                   "be kept like all others");
  }
  const absl::Status status =
      entry.dtype().empty()
          ? absl::OkStatus()
          : CheckKvDtype(path + ".dtype", entry.dtype(), spec.precision());
  if (!status.ok() || !entry.has_streaming()) return status;
  return CheckStreaming(path + ".streaming", entry.streaming());
}

}  // namespace

absl::Status CheckKvCache(const config::v1::ModelSpec& spec) {
  // A variant may leave the dtype to its base.
  const bool inherits = IsVariant(spec) && spec.kv_cache().dtype().empty();
  absl::Status status =
      inherits ? absl::OkStatus()
               : CheckKvDtype("kv_cache.dtype", spec.kv_cache().dtype(),
                              spec.precision());
  std::map<std::pair<int, int>, int> seen;
  for (int i = 0; status.ok() && i < spec.kv_cache().heads_size(); ++i) {
    status = CheckKvHeads(spec, i, &seen);
  }
  return status.ok() ? CheckQuota(spec.kv_cache().quota()) : status;
}

}  // namespace headcount
