#include "server/model_setup.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "model/model.h"
#include "server/config.h"

namespace headcount {
namespace {

// Rows of logits in one step: as many sequences can run at once. A row of a
// large vocabulary is half a megabyte.
constexpr int32_t kMaxLogitsRows = 256;

// Indices of `all` heads that are not in `kept`, which is rising.
std::vector<int> Missing(int all, const std::vector<int>& kept) {
  std::vector<int> missing;
  for (int head = 0; head < all; ++head) {
    if (!std::binary_search(kept.begin(), kept.end(), head)) {
      missing.push_back(head);
    }
  }
  return missing;
}

// FNV-1a (Fowler, Noll, Vo) over the pruned heads: tells masks apart on a
// dashboard, no more.
std::string MaskDigest(const HeadLayout& layout) {
  uint32_t hash = 2166136261u;
  const auto mix = [&hash](int value) {
    hash = (hash ^ static_cast<uint32_t>(value)) * 16777619u;
  };
  bool pruned = false;
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    const LayerHeads& layer = layout.layers()[l];
    for (const int head : Missing(layer.dense.query_heads, layer.query_heads)) {
      mix(static_cast<int>(l));
      mix(head);
      pruned = true;
    }
  }
  return pruned ? absl::StrFormat("%08x", hash) : "";
}

v1::LayerHeads DescribeLayer(int index, const LayerHeads& layer) {
  v1::LayerHeads out;
  out.set_layer(index);
  out.set_query_heads_unpruned(layer.dense.query_heads);
  out.set_kv_heads_unpruned(layer.dense.kv_heads);
  out.mutable_query_heads()->Add(layer.query_heads.begin(),
                                 layer.query_heads.end());
  for (const KvHead& head : layer.kv_heads) {
    v1::KvHead* kv = out.add_kv_heads();
    kv->set_index(head.index);
    kv->set_dtype(std::string(KvDtypeName(head.dtype)));
    kv->set_window(head.retention.window);
    const auto first = layer.query_heads.begin() + head.first_query;
    kv->mutable_query_heads()->Add(first, first + head.num_queries);
  }
  return out;
}

// K and V of one token in every KV head of the unpruned model.
int64_t DenseKvBytesPerToken(const HeadLayout& layout, KvDtype dtype) {
  return layout.dense_kv_heads() * layout.head_dim() * 2 * KvDtypeBytes(dtype);
}

v1::Model Describe(const config::v1::ModelSpec& spec, const Model& model,
                   int32_t max_context) {
  const ModelConfig& config = model.config();
  const HeadLayout& layout = model.layout();
  v1::Model out;
  out.set_name(spec.name());
  out.set_architecture(config.architecture);
  out.set_num_layers(config.layers);
  out.set_hidden_size(config.hidden);
  out.set_head_dim(config.head_dim);
  out.set_vocab_size(config.vocab);
  out.set_max_context(max_context);
  out.set_max_concurrent(spec.limits().max_concurrent());
  out.set_query_heads(static_cast<int32_t>(layout.query_heads()));
  out.set_query_heads_unpruned(
      static_cast<int32_t>(layout.dense_query_heads()));
  out.set_kv_heads(static_cast<int32_t>(layout.kv_heads()));
  out.set_kv_heads_unpruned(static_cast<int32_t>(layout.dense_kv_heads()));
  out.set_kv_dtype(spec.kv_cache().dtype());
  out.set_kv_bytes_per_token(model.kv_bytes_per_token());
  out.set_kv_bytes_per_token_unpruned(
      DenseKvBytesPerToken(layout, KvDtypeOf(spec)));
  int64_t block_bytes = 0;
  for (const KvGeometry& geometry : model.geometries()) {
    block_bytes += geometry.block_bytes();
  }
  out.set_kv_block_bytes(block_bytes);
  out.set_weight_bytes(model.weight_bytes());
  out.set_weight_bytes_pruned(model.pruned_weight_bytes());
  out.set_precision(spec.precision());
  for (const std::string& label : spec.classify().labels()) {
    out.add_labels(label);
  }
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    *out.add_layers() = DescribeLayer(static_cast<int>(l), layout.layers()[l]);
  }
  return out;
}

absl::StatusOr<int32_t> MaxContext(const config::v1::ModelSpec& spec,
                                   const ModelConfig& config) {
  const int32_t wanted = spec.limits().max_context();
  if (wanted > config.max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("limits.max_context: ", wanted,
                     " is over the model's own, ", config.max_context));
  }
  return wanted == 0 ? config.max_context : wanted;
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const config::v1::ModelSpec& spec,
                                      const EngineOptions& options,
                                      Backend* backend) {
  static std::atomic<uint64_t> last_load_id = 0;
  const absl::Time start = absl::Now();
  absl::StatusOr<Tokenizer> loaded = Tokenizer::Load(spec.source().path());
  if (!loaded.ok()) return loaded.status();
  auto tokenizer = std::make_shared<const Tokenizer>(*std::move(loaded));
  std::optional<ClassifySetup> classify;
  if (spec.has_classify()) {
    absl::StatusOr<ClassifySetup> setup =
        SetUpClassify(spec.classify(), *tokenizer);
    if (!setup.ok()) return setup.status();
    classify = *std::move(setup);
  }
  const int32_t logits_rows = std::min(options.step_tokens, kMaxLogitsRows);
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load({.path = spec.source().path(),
                   .mask = HeadMaskOf(spec),
                   .mask_file = spec.heads().mask_file(),
                   .kv_dtype = KvDtypeOf(spec),
                   .precision = spec.precision() == "exact" ? Precision::kExact
                                                            : Precision::kFast,
                   .max_step_tokens = options.step_tokens,
                   .max_logits_rows = logits_rows},
                  backend);
  if (!model.ok()) return model.status();
  const ModelConfig& config = (*model)->config();
  if (tokenizer->vocab_size() > config.vocab) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tokenizer has ids up to ", tokenizer->vocab_size() - 1,
        ", but the model has a vocabulary of ", config.vocab));
  }
  const absl::StatusOr<int32_t> max_context = MaxContext(spec, config);
  if (!max_context.ok()) return max_context.status();

  ServedModel served{
      .name = spec.name(),
      .load_id = ++last_load_id,
      .tokenizer = tokenizer,
      .vocab = config.vocab,
      .max_context = *max_context,
      .eos_ids = config.eos_ids,
      .classify = std::move(classify),
      .chat = ChatTemplate::Load(spec.source().path(), *tokenizer),
      .description = Describe(spec, **model, *max_context),
      .mask_digest = MaskDigest((*model)->layout()),
      .load_time = absl::Now() - start};
  if (served.chat.ok()) {
    served.description.set_chat_template(std::string(served.chat->name()));
  }
  EngineModel engine{.name = spec.name(),
                     .model = *std::move(model),
                     .tokenizer = std::move(tokenizer),
                     .max_context = *max_context,
                     .max_concurrent = spec.limits().max_concurrent(),
                     .max_logits_rows = logits_rows,
                     .quota = QuotaOf(spec),
                     .share = ShareOf(spec),
                     .load_id = served.load_id};
  return LoadedModel{std::move(engine), std::move(served)};
}

absl::StatusOr<ClassifySetup> SetUpClassify(const config::v1::Classify& spec,
                                            const Tokenizer& tokenizer) {
  absl::StatusOr<PromptTemplate> prompt =
      PromptTemplate::Parse(spec.template_(), tokenizer);
  if (!prompt.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("classify.template: ", prompt.status().message()));
  }
  ClassifySetup setup{.prompt = *std::move(prompt), .labels = {}};
  std::set<std::vector<int32_t>> seen;
  for (int i = 0; i < spec.labels_size(); ++i) {
    const std::string& text = spec.labels(i);
    std::vector<int32_t> ids = tokenizer.Encode(text, setup.prompt.end_place());
    if (ids.empty() || !seen.insert(ids).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "classify.labels[", i, "]: '", text, "' has ",
          ids.empty() ? "no tokens" : "the tokens of another label"));
    }
    setup.labels.push_back({.text = text, .ids = std::move(ids)});
  }
  return setup;
}

absl::StatusOr<LoadedModels> LoadModels(const config::v1::ServerConfig& config,
                                        Backend* backend) {
  const EngineOptions options = EngineOptionsOf(config);
  LoadedModels models;
  for (const config::v1::ModelSpec& spec : config.models()) {
    if (spec.preload() == "off") {
      models.unloaded.push_back(spec.name());
      continue;
    }
    absl::StatusOr<LoadedModel> model = LoadModel(spec, options, backend);
    if (!model.ok()) {
      models.failed.push_back(FailedModel::Of(spec, model.status()));
      continue;
    }
    model->served.index = static_cast<int>(models.loaded.size());
    models.loaded.push_back(*std::move(model));
  }
  if (models.loaded.empty() && !models.failed.empty()) {
    return models.failed.front().status;
  }
  return models;
}

}  // namespace headcount
