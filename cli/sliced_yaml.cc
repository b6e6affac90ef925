#include "cli/sliced_yaml.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cli/output.h"
#include "server/yaml_tree.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;

// As JSON, which is YAML too: whatever needs quotes has them.
Json JsonOf(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kScalar:
      return node.scalar;
    case YamlNode::Kind::kSequence: {
      Json items = Json::array();
      for (const YamlNode& item : node.items) items.push_back(JsonOf(item));
      return items;
    }
    case YamlNode::Kind::kMap: {
      Json entries = Json::object();
      for (const auto& [key, value] : node.entries)
        entries[key] = JsonOf(value);
      return entries;
    }
  }
  return nullptr;
}

// What the heads of a list are called among those that are left of the layer.
Json Renumbered(const Json& ranges, const LayerHeads& layer) {
  std::set<int> wanted;
  for (const Json& range : ranges) {
    // Whoever served it has read it, so it is valid.
    ParseHeadRange(range.is_string() ? range.get<std::string>() : "", &wanted)
        .IgnoreError();
  }
  Json left = Json::array();
  for (size_t slot = 0; slot < layer.kv_heads.size(); ++slot) {
    if (!wanted.contains(layer.kv_heads[slot].index)) continue;
    left.push_back(absl::StrCat(slot));
  }
  return left;
}

void RenumberKvHeads(const HeadLayout& layout, Json* kv_cache) {
  if (!kv_cache->is_object() || !kv_cache->contains("heads")) return;
  Json left = Json::array();
  for (const Json& entry : (*kv_cache)["heads"]) {
    size_t layer = 0;
    if (!entry.contains("kv_heads") ||
        !absl::SimpleAtoi(entry.value("layer", std::string()), &layer) ||
        layer >= layout.layers().size()) {
      continue;
    }
    Json renumbered = entry;
    renumbered["kv_heads"] =
        Renumbered(entry["kv_heads"], layout.layers()[layer]);
    if (!renumbered["kv_heads"].empty()) left.push_back(renumbered);
  }
  if (left.empty()) {
    kv_cache->erase("heads");
  } else {
    (*kv_cache)["heads"] = left;
  }
}

}  // namespace

std::optional<std::string> YamlOf(const std::string& path) {
  std::error_code ignored;
  if (absl::EndsWith(path, ".yaml") || absl::EndsWith(path, ".yml")) {
    return path;
  }
  const fs::path beside = fs::path(path) / "headcount.yaml";
  if (!fs::is_regular_file(beside, ignored)) return std::nullopt;
  return beside.string();
}

absl::StatusOr<std::string> SlicedYaml(const std::string& yaml_path,
                                       const HeadLayout& layout) {
  std::ifstream file(yaml_path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const absl::StatusOr<YamlNode> tree = ParseYaml(text, yaml_path);
  if (!tree.ok()) return tree.status();
  std::string sliced = "# How `headcount serve` runs this model.\n";
  for (const auto& [key, value] : tree->entries) {
    if (key == "heads" || key == "source") continue;
    Json json = JsonOf(value);
    if (key == "kv_cache") RenumberKvHeads(layout, &json);
    absl::StrAppend(&sliced, key, ": ", json.dump(), "\n");
  }
  return sliced;
}

}  // namespace headcount
