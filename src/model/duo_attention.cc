#include "model/duo_attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "format/json.h"
#include "heads/kv_geometry.h"
#include "model/at_path.h"
#include "model/json_fields.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

constexpr char kGates[] = "full_attention_heads.tsv";
constexpr size_t kMaxLines = 65536;
constexpr size_t kMaxLineBytes = size_t{1} << 20;
constexpr int32_t kMaxTokens = 1 << 28;

absl::StatusOr<std::vector<double>> ParseGates(const std::string& line,
                                               const std::string& where) {
  if (line.size() > kMaxLineBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": longer than 1 MiB"));
  }
  std::vector<double> gates;
  for (const absl::string_view field :
       absl::StrSplit(line, absl::ByAnyChar("\t "), absl::SkipEmpty())) {
    double gate = 0;
    if (!absl::SimpleAtod(field, &gate) || !std::isfinite(gate)) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": '", field.substr(0, 32), "' is no number"));
    }
    gates.push_back(std::clamp(gate, 0.0, 1.0));
  }
  return gates;
}

// Of config.json beside the gates, if there is one.
absl::Status ReadStreaming(const std::string& path, Retention* streaming) {
  if (!std::filesystem::exists(path)) return absl::OkStatus();
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path);
  if (!json.ok()) return json.status();
  JsonFields fields(*json, "");
  streaming->window =
      fields.Int("recent_size", {1, kMaxTokens}, streaming->window);
  const int32_t sink =
      fields.Int("sink_size", {0, kMaxTokens}, streaming->sink);
  streaming->sink = (sink + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  return AtPath(path, fields.status());
}

}  // namespace

absl::StatusOr<DuoPattern> ReadDuoPattern(const std::string& path) {
  const std::filesystem::path given(path);
  const std::filesystem::path gates =
      std::filesystem::is_directory(given) ? given / kGates : given;
  std::ifstream file(gates);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat(gates.string(), ": cannot be opened; name a folder with ",
                     kGates, ", or that file"));
  }
  DuoPattern pattern;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    absl::StripTrailingAsciiWhitespace(&line);
    if (line.empty()) continue;
    absl::StatusOr<std::vector<double>> layer =
        ParseGates(line, absl::StrCat(gates.string(), ":", number));
    if (!layer.ok()) return layer.status();
    pattern.gates.push_back(*std::move(layer));
    if (pattern.gates.size() > kMaxLines) {
      return absl::InvalidArgumentError(
          absl::StrCat(gates.string(), ": more than ", kMaxLines, " layers"));
    }
  }
  const absl::Status status = ReadStreaming(
      (gates.parent_path() / "config.json").string(), &pattern.streaming);
  if (!status.ok()) return status;
  return pattern;
}

absl::Status CheckDuoPattern(const DuoPattern& pattern,
                             const std::vector<LayerShape>& layers) {
  if (pattern.gates.size() != layers.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern has ", pattern.gates.size(),
                     " layers, but the model ", layers.size()));
  }
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const auto heads = static_cast<size_t>(layers[layer].kv_heads);
    if (pattern.gates[layer].size() == heads) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, ": the pattern has ", pattern.gates[layer].size(),
        " gates, but the model ", heads, " KV heads"));
  }
  return absl::OkStatus();
}

KvHeadRules StreamingHeads(const DuoPattern& pattern, double share) {
  std::vector<std::pair<double, std::pair<int, int>>> order;
  for (size_t layer = 0; layer < pattern.gates.size(); ++layer) {
    for (size_t head = 0; head < pattern.gates[layer].size(); ++head) {
      order.push_back({pattern.gates[layer][head],
                       {static_cast<int>(layer), static_cast<int>(head)}});
    }
  }
  std::sort(order.begin(), order.end());
  // 0.3 of 10 heads is not quite 3.
  const double wanted = share * static_cast<double>(order.size()) + 1e-6;
  order.resize(std::min(order.size(), static_cast<size_t>(wanted)));
  KvHeadRules rules;
  for (const auto& [gate, place] : order) {
    rules[place.first][place.second].retention = pattern.streaming;
  }
  return rules;
}

}  // namespace headcount
