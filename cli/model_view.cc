#include "cli/model_view.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/human.h"
#include "cli/console.h"
#include "cli/table.h"

namespace headcount {
namespace {

// "1.5 KiB, 50 % less than unpruned"; `all` is the unpruned size.
std::string Saved(int64_t bytes, int64_t all) {
  if (bytes >= all || all <= 0) return FormatByteSize(bytes);
  const double saved =
      100.0 * static_cast<double>(all - bytes) / static_cast<double>(all);
  return absl::StrFormat("%s, %.1f %% less than the %s of all heads",
                         FormatByteSize(bytes), saved, FormatByteSize(all));
}

std::string Heads(int64_t kept, int64_t all) {
  std::string text = absl::StrCat(kept, " of ", all);
  if (kept < all) absl::StrAppend(&text, ", ", all - kept, " pruned");
  return text;
}

// The dtypes of a layer's KV heads, each named once.
std::string Dtypes(const v1::LayerHeads& layer) {
  std::vector<std::string> names;
  for (const v1::KvHead& head : layer.kv_heads()) {
    if (names.empty() || names.back() != head.dtype()) {
      names.push_back(head.dtype());
    }
  }
  return names.empty() ? "-" : absl::StrJoin(names, ",");
}

std::string Kept(const v1::KvHead& head) {
  if (head.window() == 0) return "all tokens";
  const std::string last = absl::StrCat("last ", FormatCount(head.window()));
  if (head.sink() == 0) return last;
  return absl::StrCat("first ", FormatCount(head.sink()), ", ", last);
}

// What the KV heads of a layer keep of a sequence: "all tokens", or where they
// differ "all tokens (2); first 64, last 256 (6)".
std::string Kept(const v1::LayerHeads& layer) {
  std::map<std::string, int> heads;
  for (const v1::KvHead& head : layer.kv_heads()) ++heads[Kept(head)];
  if (heads.empty()) return "-";
  if (heads.size() == 1) return heads.begin()->first;
  std::vector<std::string> parts;
  for (const auto& [kept, count] : heads) {
    parts.push_back(absl::StrCat(kept, " (", count, ")"));
  }
  return absl::StrJoin(parts, "; ");
}

// "int8", or "int8 (88), f16 (2)" where KV heads differ.
std::string KvDtypes(const v1::Model& model) {
  std::map<std::string, int> heads;
  for (const v1::LayerHeads& layer : model.layers()) {
    for (const v1::KvHead& head : layer.kv_heads()) ++heads[head.dtype()];
  }
  if (heads.size() < 2) return model.kv_dtype();
  std::vector<std::string> parts;
  const auto add = [&](const std::string& dtype) {
    parts.push_back(absl::StrCat(dtype, " (", heads[dtype], ")"));
  };
  add(model.kv_dtype());
  for (const auto& [dtype, count] : heads) {
    if (dtype != model.kv_dtype()) add(dtype);
  }
  return absl::StrJoin(parts, ", ");
}

int64_t BytesPerToken(const v1::LayerHeads& layer) {
  int64_t bytes = 0;
  for (const v1::KvHead& head : layer.kv_heads()) {
    bytes += head.bytes_per_token();
  }
  return bytes;
}

std::string RenderLayers(const v1::Model& model) {
  Table table({{"LAYER", Align::kRight},
               {"QUERY HEADS BY KV HEAD"},
               {"QUERY", Align::kRight},
               {"KV", Align::kRight},
               {"DTYPE"},
               {"PER TOKEN", Align::kRight},
               {"KEEPS"}});
  for (const v1::LayerHeads& layer : model.layers()) {
    table.AddRow(
        {absl::StrCat(layer.layer()), HeadStrip(layer),
         absl::StrCat(layer.query_heads_size(), "/",
                      layer.query_heads_unpruned()),
         absl::StrCat(layer.kv_heads_size(), "/", layer.kv_heads_unpruned()),
         Dtypes(layer), FormatByteSize(BytesPerToken(layer)), Kept(layer)});
  }
  return table.Render();
}

Json LayerJson(const v1::LayerHeads& layer) {
  Json kv_heads = Json::array();
  for (const v1::KvHead& head : layer.kv_heads()) {
    kv_heads.push_back({{"index", head.index()},
                        {"query_heads", head.query_heads()},
                        {"dtype", head.dtype()},
                        {"bytes_per_token", head.bytes_per_token()},
                        {"window", head.window()},
                        {"sink", head.sink()}});
  }
  return {{"layer", layer.layer()},
          {"query_heads_unpruned", layer.query_heads_unpruned()},
          {"kv_heads_unpruned", layer.kv_heads_unpruned()},
          {"query_heads", layer.query_heads()},
          {"kv_heads", kv_heads}};
}

std::string Name(const v1::Model& model) {
  if (model.variant_of().empty()) return model.name();
  return absl::StrCat(model.name(), ", ", VariantNote(model.variant_of()));
}

std::string Weights(const v1::Model& model) {
  const int64_t bytes = model.weight_bytes();
  if (model.variant_of().empty()) {
    return Saved(bytes, bytes + model.weight_bytes_pruned());
  }
  return absl::StrCat(FormatByteSize(bytes), ", it shares those of ",
                      model.variant_of());
}

}  // namespace

std::string StateName(v1::Model::State state) {
  switch (state) {
    case v1::Model::STATE_READY:
      return "ready";
    case v1::Model::STATE_DRAINING:
      return "draining";
    case v1::Model::STATE_FAILED:
      return "failed";
    case v1::Model::STATE_UNLOADED:
      return "unloaded";
    case v1::Model::STATE_LOADING:
      return "loading";
    case v1::Model::STATE_UNLOADING:
      return "unloading";
    default:
      return "unknown";
  }
}

std::string VariantNote(const std::string& variant_of) {
  return variant_of.empty() ? "" : absl::StrCat("variant of ", variant_of);
}

std::string HeadStrip(const v1::LayerHeads& layer) {
  const int heads = layer.query_heads_unpruned();
  const int groups = layer.kv_heads_unpruned();
  if (heads <= 0 || groups <= 0) return "-";
  std::string strip(static_cast<size_t>(heads), '.');
  for (const int head : layer.query_heads()) {
    if (head >= 0 && head < heads) strip[static_cast<size_t>(head)] = '#';
  }
  const int group_size = heads / groups;
  for (int group = groups - 1; group > 0; --group) {
    strip.insert(static_cast<size_t>(group * group_size), 1, ' ');
  }
  return strip;
}

std::string RenderModel(const v1::Model& model) {
  if (model.state() == v1::Model::STATE_FAILED) {
    return RenderFields({{"name", Name(model)},
                         {"now", "failed: it did not load"},
                         {"error", model.error()}});
  }
  const bool serving = model.state() != v1::Model::STATE_UNSPECIFIED;
  const std::string concurrent =
      model.max_concurrent() == 0
          ? "as many sequences as the pool holds"
          : absl::StrCat(model.max_concurrent(), " sequences at most");
  std::vector<std::pair<std::string, std::string>> fields = {
      {"name", Name(model)},
      {"architecture",
       absl::StrFormat("%s, %d layers, hidden %d, head dim %d, vocabulary %s",
                       model.architecture(), model.num_layers(),
                       model.hidden_size(), model.head_dim(),
                       FormatCount(model.vocab_size()))},
      {"context",
       absl::StrCat(FormatCount(model.max_context()), " tokens, ", concurrent)},
      {"query heads", Heads(model.query_heads(), model.query_heads_unpruned())},
      {"KV heads", Heads(model.kv_heads(), model.kv_heads_unpruned())},
      {"KV per token",
       Saved(model.kv_bytes_per_token(), model.kv_bytes_per_token_unpruned())},
      {"KV per block", FormatByteSize(model.kv_block_bytes())},
      {"weights", Weights(model)},
      {"precision", absl::StrCat(model.precision(), ", KV ", KvDtypes(model))},
      {"labels", model.labels().empty()
                     ? "none (see `classify` in headcount.yaml)"
                     : absl::StrJoin(model.labels(), ", ")},
      {"chat", model.chat_template().empty()
                   ? "no (see `headcount chat`)"
                   : absl::StrCat("template ", model.chat_template())},
  };
  if (serving) {
    fields.emplace_back(
        "now",
        absl::StrFormat("%s, %d running, %d waiting, %s of KV cache",
                        StateName(model.state()), model.requests_running(),
                        model.requests_waiting(),
                        FormatByteSize(model.kv_bytes_used())));
  }
  std::string text = RenderFields(fields);
  if (model.layers_size() > 0) {
    absl::StrAppend(&text, "\n", RenderLayers(model));
  }
  return text;
}

Json ModelJson(const v1::Model& model) {
  Json json = {
      {"name", model.name()},
      {"variant_of", model.variant_of()},
      {"state", StateName(model.state())},
      {"architecture", model.architecture()},
      {"num_layers", model.num_layers()},
      {"hidden_size", model.hidden_size()},
      {"head_dim", model.head_dim()},
      {"vocab_size", model.vocab_size()},
      {"max_context", model.max_context()},
      {"max_concurrent", model.max_concurrent()},
      {"query_heads", model.query_heads()},
      {"query_heads_unpruned", model.query_heads_unpruned()},
      {"kv_heads", model.kv_heads()},
      {"kv_heads_unpruned", model.kv_heads_unpruned()},
      {"kv_dtype", model.kv_dtype()},
      {"kv_bytes_per_token", model.kv_bytes_per_token()},
      {"kv_bytes_per_token_unpruned", model.kv_bytes_per_token_unpruned()},
      {"kv_block_bytes", model.kv_block_bytes()},
      {"weight_bytes", model.weight_bytes()},
      {"weight_bytes_pruned", model.weight_bytes_pruned()},
      {"kv_bytes_used", model.kv_bytes_used()},
      {"requests_running", model.requests_running()},
      {"requests_waiting", model.requests_waiting()},
      {"labels", model.labels()},
      {"precision", model.precision()},
      {"chat_template", model.chat_template()},
      {"error", model.error()},
  };
  for (const v1::LayerHeads& layer : model.layers()) {
    json["layers"].push_back(LayerJson(layer));
  }
  return json;
}

}  // namespace headcount
