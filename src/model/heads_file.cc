#include "model/heads_file.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "format/json.h"
#include "heads/kv_geometry.h"
#include "model/at_path.h"
#include "model/json_fields.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

bool IsSha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
                  (c >= 'a' && c <= 'f');
         });
}

void FailIfUnlike(JsonFields& fields, const char* key, int32_t of_model) {
  const int32_t of_file = fields.Int(key, {0, INT32_MAX});
  if (of_file == of_model) return;
  fields.Fail(key, absl::StrCat("made for ", of_file, ", but the model has ",
                                of_model));
}

absl::Status ParseBase(const nlohmann::json& json, const ModelConfig& config,
                       std::string* sha256) {
  JsonFields fields(json, "base");
  fields.AllowOnly(
      {"arch", "sha256", "layers", "q_heads", "kv_heads", "head_dim"});
  const std::string architecture = fields.String("arch");
  if (architecture != config.architecture) {
    fields.Fail("arch", absl::StrCat("made for ", Abridged(architecture),
                                     ", but the model is ",
                                     Abridged(config.architecture)));
  }
  FailIfUnlike(fields, "layers", config.layers);
  FailIfUnlike(fields, "q_heads", config.heads.front().query_heads);
  FailIfUnlike(fields, "kv_heads", config.heads.front().kv_heads);
  FailIfUnlike(fields, "head_dim", config.head_dim);
  *sha256 = fields.String("sha256", "");
  if (!sha256->empty() && !IsSha256(*sha256)) {
    fields.Fail("sha256", absl::StrCat(Abridged(*sha256),
                                       " is not 64 lower-case hex digits"));
  }
  return fields.status();
}

// The heads listed at `key`; twice the same is an error.
std::set<int> HeadSet(JsonFields& fields, const char* key, int num_heads) {
  std::set<int> heads;
  for (int32_t head : fields.Ints(key, {0, num_heads - 1})) {
    if (!heads.insert(head).second) {
      fields.Fail(key, absl::StrCat("names head ", head, " twice"));
    }
  }
  return heads;
}

// KV heads whose query heads are all in `query_heads`.
std::set<int> EmptiedGroups(const LayerShape& shape,
                            const std::set<int>& query_heads) {
  std::set<int> emptied;
  if (shape.kv_heads == 0) return emptied;
  const int group_size = shape.query_heads / shape.kv_heads;
  for (int kv = 0; kv < shape.kv_heads; ++kv) {
    bool empty = true;
    for (int i = 0; i < group_size; ++i) {
      empty = empty && query_heads.contains(kv * group_size + i);
    }
    if (empty) emptied.insert(kv);
  }
  return emptied;
}

std::set<int> AllHeads(int count) {
  std::set<int> heads;
  for (int head = 0; head < count; ++head) heads.insert(head);
  return heads;
}

// An entry of a layer's `stream`.
absl::Status ParseStream(const nlohmann::json& json, const std::string& path,
                         int kv_heads, std::map<int, KvHeadRule>* rules) {
  JsonFields fields(json, path);
  fields.AllowOnly({"kv", "sink", "recent"});
  for (const char* key : {"kv", "recent"}) {
    if (!fields.Has(key)) fields.Fail(key, "missing");
  }
  const int head = fields.Int("kv", {0, kv_heads - 1});
  const Retention retention{.window = fields.Int("recent", {1, INT32_MAX}),
                            .sink = fields.Int("sink", {0, INT32_MAX}, 0)};
  if (retention.sink % kBlockTokens != 0) {
    fields.Fail("sink", absl::StrCat(retention.sink, " is not a multiple of ",
                                     kBlockTokens));
  }
  if (!fields.status().ok()) return fields.status();
  if (!rules->insert({head, {.retention = retention}}).second) {
    fields.Fail("kv", absl::StrCat("names KV head ", head, " twice"));
  }
  return fields.status();
}

absl::Status ParseStreams(const nlohmann::json& streams,
                          const std::string& path, int kv_heads,
                          std::map<int, KvHeadRule>* rules) {
  if (!streams.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": must be a list"));
  }
  for (size_t i = 0; i < streams.size(); ++i) {
    absl::Status status = ParseStream(
        streams[i], absl::StrCat(path, "[", i, "]"), kv_heads, rules);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ParseLayer(const nlohmann::json& json, const std::string& path,
                        const ModelConfig& config, HeadsFile* file) {
  JsonFields fields(json, path);
  // Named by the format, but nothing here serves them yet.
  for (const char* key : {"kv_dtype", "k_scale", "v_scale"}) {
    if (fields.Has(key)) {
      fields.Fail(key,
                  "this version of headcount does not serve it; leave it "
                  "out");
    }
  }
  fields.AllowOnly({"i", "drop_q", "drop_kv", "drop_attention", "stream",
                    "kv_dtype", "k_scale", "v_scale"});
  const int layer = fields.Int("i", {0, config.layers - 1});
  if (!fields.status().ok()) return fields.status();

  const LayerShape& shape = config.heads[static_cast<size_t>(layer)];
  const bool drop_attention = fields.Bool("drop_attention", false);
  std::set<int> query_heads = HeadSet(fields, "drop_q", shape.query_heads);
  std::set<int> kv_heads = HeadSet(fields, "drop_kv", shape.kv_heads);
  if (drop_attention) {
    const std::set<int> all = AllHeads(shape.query_heads);
    if (fields.Has("drop_q") && query_heads != all) {
      fields.Fail("drop_q",
                  "drop_attention drops every head: list them all "
                  "or leave this out");
    }
    query_heads = all;
    if (!fields.Has("drop_kv")) kv_heads = AllHeads(shape.kv_heads);
  }
  const std::set<int> emptied = EmptiedGroups(shape, query_heads);
  if (kv_heads != emptied) {
    fields.Fail("drop_kv", absl::StrCat("[", absl::StrJoin(kv_heads, ", "),
                                        "], but the groups that drop_q empties "
                                        "are [",
                                        absl::StrJoin(emptied, ", "), "]"));
  }
  if (file->mask.pruned.contains(layer)) {
    fields.Fail("i", absl::StrCat("layer ", layer, " stands there twice"));
  }
  file->mask.pruned[layer] = std::move(query_heads);
  if (!fields.status().ok() || !fields.Has("stream")) return fields.status();
  std::map<int, KvHeadRule>& rules = file->streaming[layer];
  absl::Status status =
      ParseStreams(*fields.Find("stream"), absl::StrCat(path, ".stream"),
                   shape.kv_heads, &rules);
  if (!status.ok()) return status;
  for (const auto& [head, rule] : rules) {
    if (!emptied.contains(head)) continue;
    fields.Fail("stream",
                absl::StrCat("names KV head ", head, ", which drop_q empties"));
  }
  return fields.status();
}

// The name of the file with the tensors, beside the mask file.
absl::StatusOr<std::string> ParseRepair(const nlohmann::json& json) {
  JsonFields fields(json, "repair");
  fields.AllowOnly({"kind", "tensors"});
  const std::string kind = fields.String("kind");
  if (kind != "ridge_wo") {
    fields.Fail("kind",
                absl::StrCat(Abridged(kind), " is not known; known: ridge_wo"));
  }
  std::string tensors = fields.String("tensors");
  if (!absl::EndsWith(tensors, ".safetensors") ||
      absl::StrContains(tensors, '/')) {
    fields.Fail("tensors",
                absl::StrCat(Abridged(tensors),
                             " is not the name of a .safetensors file in the "
                             "folder of the mask file"));
  }
  if (!fields.status().ok()) return fields.status();
  return tensors;
}

}  // namespace

absl::StatusOr<HeadsFile> ParseHeadsFile(const nlohmann::json& json,
                                         const ModelConfig& config) {
  JsonFields fields(json, "");
  const std::string format = fields.String("format");
  if (format != "heads/1") {
    fields.Fail("format", absl::StrCat(Abridged(format),
                                       " is not known; known: heads/1"));
  }
  fields.AllowOnly(
      {"format", "base", "weights", "task", "layers", "repair", "evidence"});
  const std::string weights = fields.String("weights", "full");
  if (weights != "full") {
    fields.Fail(
        "weights",
        absl::StrCat(Abridged(weights),
                     " is not supported: the mask is applied to \"full\" "
                     "weights"));
  }
  for (const char* key : {"base", "layers"}) {
    if (!fields.Has(key)) fields.Fail(key, "missing");
  }
  for (const char* key : {"task", "evidence"}) {
    if (fields.Has(key) && !fields.Find(key)->is_object()) {
      fields.Fail(key, "must be an object");
    }
  }
  if (!fields.status().ok()) return fields.status();

  HeadsFile file;
  absl::Status status =
      ParseBase(*fields.Find("base"), config, &file.base_sha256);
  if (!status.ok()) return status;
  const nlohmann::json& layers = *fields.Find("layers");
  if (!layers.is_array()) {
    return absl::InvalidArgumentError("layers: must be a list");
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    status =
        ParseLayer(layers[i], absl::StrCat("layers[", i, "]"), config, &file);
    if (!status.ok()) return status;
  }
  if (!fields.Has("repair")) return file;
  absl::StatusOr<std::string> repair = ParseRepair(*fields.Find("repair"));
  if (!repair.ok()) return repair.status();
  file.repair = *std::move(repair);
  return file;
}

absl::StatusOr<HeadsFile> ReadHeadsFile(const std::string& path,
                                        const ModelConfig& config) {
  absl::StatusOr<nlohmann::json> json = ReadJsonFile(path);
  if (!json.ok()) return json.status();
  absl::StatusOr<HeadsFile> file = ParseHeadsFile(*json, config);
  if (!file.ok()) return AtPath(path, file.status());
  if (!file->repair.empty()) {
    file->repair =
        (std::filesystem::path(path).parent_path() / file->repair).string();
  }
  return file;
}

}  // namespace headcount
