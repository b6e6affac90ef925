#include "server/model_setup.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "model/model.h"
#include "server/config.h"
#include "server/config_paths.h"

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

v1::LayerHeads DescribeLayer(const Variant& heads, int index) {
  const LayerHeads& layer = heads.layout().layers()[static_cast<size_t>(index)];
  v1::LayerHeads out;
  out.set_layer(index);
  out.set_query_heads_unpruned(layer.dense.query_heads);
  out.set_kv_heads_unpruned(layer.dense.kv_heads);
  out.mutable_query_heads()->Add(layer.query_heads.begin(),
                                 layer.query_heads.end());
  for (size_t slot = 0; slot < layer.kv_heads.size(); ++slot) {
    const KvHead& head = layer.kv_heads[slot];
    const KvGeometry& geometry =
        heads.geometries()[static_cast<size_t>(head.group)];
    v1::KvHead* kv = out.add_kv_heads();
    kv->set_index(head.index);
    kv->set_dtype(std::string(KvDtypeName(head.dtype)));
    kv->set_window(head.retention.window);
    kv->set_sink(head.retention.sink);
    kv->set_bytes_per_token(geometry.page(index, static_cast<int>(slot)).bytes /
                            kBlockTokens);
    const auto first = layer.query_heads.begin() + head.first_query;
    kv->mutable_query_heads()->Add(first, first + head.num_queries);
  }
  return out;
}

// How the KV heads of a model are kept.
struct KvRules {
  KvDtype dtype = KvDtype::kF16;
  KvHeadRules heads = {};  // of those that differ from the rest
};

KvRules KvRulesOf(const config::v1::ModelSpec& spec) {
  return {.dtype = KvDtypeOf(spec), .heads = KvHeadRulesOf(spec)};
}

// Of a variant: what it says itself, or as in its base.
absl::StatusOr<KvRules> KvRulesOf(const config::v1::ModelSpec& spec,
                                  const Variant& base,
                                  const v1::Model& base_description) {
  const bool inherits = spec.kv_cache().dtype().empty();
  const absl::StatusOr<KvDtype> dtype = ParseKvDtype(
      inherits ? base_description.kv_dtype() : spec.kv_cache().dtype());
  if (!dtype.ok()) return dtype.status();
  KvRules out{.dtype = *dtype};
  if (inherits) out.heads = RulesOf(base.layout());
  for (const auto& [layer, heads] : KvHeadRulesOf(spec)) {
    for (const auto& [head, own] : heads) {
      KvHeadRule& rule = out.heads[layer][head];
      if (own.dtype.has_value()) rule.dtype = own.dtype;
      if (own.retention.has_value()) rule.retention = own.retention;
    }
  }
  return out;
}

// KV bytes of one token in every KV head of the unpruned model.
int64_t DenseKvBytesPerToken(const KvRules& rules, const ModelConfig& config) {
  const absl::StatusOr<HeadLayout> dense =
      HeadLayout::Create({.layers = config.heads,
                          .head_dim = config.head_dim,
                          .kv_dtype = rules.dtype,
                          .kv_head_rules = rules.heads});
  CHECK(dense.ok()) << "the pruned one is: " << dense.status();
  const absl::StatusOr<int64_t> bytes = KvBytesPerToken(*dense);
  // Too many to count.
  return bytes.ok() ? *bytes : std::numeric_limits<int64_t>::max();
}

// The heads that run, and what they cost.
void DescribeHeads(const Variant& heads, const KvRules& rules,
                   const ModelConfig& config, v1::Model* out) {
  const HeadLayout& layout = heads.layout();
  out->set_query_heads(static_cast<int32_t>(layout.query_heads()));
  out->set_query_heads_unpruned(
      static_cast<int32_t>(layout.dense_query_heads()));
  out->set_kv_heads(static_cast<int32_t>(layout.kv_heads()));
  out->set_kv_heads_unpruned(static_cast<int32_t>(layout.dense_kv_heads()));
  out->set_kv_dtype(std::string(KvDtypeName(rules.dtype)));
  out->set_kv_bytes_per_token(heads.kv_bytes_per_token());
  out->set_kv_bytes_per_token_unpruned(DenseKvBytesPerToken(rules, config));
  int64_t block_bytes = 0;
  for (const KvGeometry& geometry : heads.geometries()) {
    block_bytes += geometry.block_bytes();
  }
  out->set_kv_block_bytes(block_bytes);
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    *out->add_layers() = DescribeLayer(heads, static_cast<int>(l));
  }
}

// All but what weights cost, which a variant has none of.
v1::Model Describe(const LoadedModel& model, const KvRules& rules) {
  const ModelConfig& config = model.engine.model->config();
  v1::Model out;
  out.set_name(model.served.name);
  out.set_variant_of(model.served.base);
  out.set_architecture(config.architecture);
  out.set_num_layers(config.layers);
  out.set_hidden_size(config.hidden);
  out.set_head_dim(config.head_dim);
  out.set_vocab_size(config.vocab);
  out.set_max_context(model.engine.max_context);
  out.set_max_concurrent(model.engine.max_concurrent);
  DescribeHeads(model.engine.heads(), rules, config, &out);
  if (model.served.classify.has_value()) {
    for (const ClassifySetup::Label& label : model.served.classify->labels) {
      out.add_labels(label.text);
    }
  }
  if (model.served.chat.ok()) {
    out.set_chat_template(std::string(model.served.chat->name()));
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

// Completes a model whose weights, heads and texts are there.
absl::Status Finish(const config::v1::ModelSpec& spec, const KvRules& rules,
                    LoadedModel* model) {
  static std::atomic<uint64_t> last_load_id = 0;
  const ModelConfig& config = model->engine.model->config();
  const absl::StatusOr<int32_t> max_context = MaxContext(spec, config);
  if (!max_context.ok()) return max_context.status();
  EngineModel& engine = model->engine;
  engine.name = spec.name();
  engine.tokenizer = model->served.tokenizer;
  engine.max_context = *max_context;
  engine.max_concurrent = spec.limits().max_concurrent();
  engine.quota = QuotaOf(spec);
  engine.share = ShareOf(spec);
  engine.load_id = ++last_load_id;
  ServedModel& served = model->served;
  served.name = spec.name();
  served.base = spec.source().variant_of();
  served.load_id = engine.load_id;
  served.vocab = config.vocab;
  served.max_context = *max_context;
  served.eos_ids = config.eos_ids;
  served.mask_digest = MaskDigest(engine.heads().layout());
  served.shape = ShapeOf(config);
  served.heads = std::make_shared<const HeadLayout>(engine.heads().layout());
  served.weight_heads =
      std::make_shared<const HeadLayout>(engine.model->layout());
  served.weight_bytes = engine.model->weight_bytes();
  served.description = Describe(*model, rules);
  return absl::OkStatus();
}

}  // namespace

int32_t MaxRunning(int32_t step_tokens) {
  return std::min(step_tokens, kMaxLogitsRows);
}

absl::StatusOr<LoadedModel> LoadModel(const config::v1::ModelSpec& spec,
                                      const EngineOptions& options,
                                      Backend* backend, LoadProgress progress) {
  const absl::Time start = absl::Now();
  if (absl::Status status = CheckPaths(spec); !status.ok()) return status;
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(spec.source().path());
  if (!tokenizer.ok()) return tokenizer.status();
  LoadedModel out;
  out.served.tokenizer =
      std::make_shared<const Tokenizer>(*std::move(tokenizer));
  if (spec.has_classify()) {
    absl::StatusOr<ClassifySetup> setup =
        SetUpClassify(spec.classify(), *out.served.tokenizer);
    if (!setup.ok()) return setup.status();
    out.served.classify = *std::move(setup);
  }
  out.engine.max_logits_rows = MaxRunning(options.step_tokens);
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load({.path = spec.source().path(),
                   .mask = HeadMaskOf(spec),
                   .mask_file = spec.heads().mask_file(),
                   .kv_dtype = KvDtypeOf(spec),
                   .kv_head_rules = KvHeadRulesOf(spec),
                   .precision = spec.precision() == "exact" ? Precision::kExact
                                                            : Precision::kFast,
                   .max_step_tokens = options.step_tokens,
                   .max_logits_rows = out.engine.max_logits_rows,
                   .progress = std::move(progress)},
                  backend);
  if (!model.ok()) return model.status();
  out.engine.model = *std::move(model);
  const int32_t vocab = out.engine.model->config().vocab;
  if (out.served.tokenizer->vocab_size() > vocab) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tokenizer has ids up to ", out.served.tokenizer->vocab_size() - 1,
        ", but the model has a vocabulary of ", vocab));
  }
  out.served.chat =
      ChatTemplate::Load(spec.source().path(), *out.served.tokenizer);
  const absl::Status status = Finish(spec, KvRulesOf(spec), &out);
  if (!status.ok()) return status;
  v1::Model& description = out.served.description;
  description.set_precision(spec.precision());
  description.set_weight_bytes(out.engine.model->weight_bytes());
  description.set_weight_bytes_pruned(out.engine.model->pruned_weight_bytes());
  out.served.load_time = absl::Now() - start;
  return out;
}

absl::StatusOr<LoadedModel> LoadVariant(const config::v1::ModelSpec& spec,
                                        const EngineModel& base,
                                        const ServedModel& served) {
  const absl::Time start = absl::Now();
  if (absl::Status status = CheckPaths(spec); !status.ok()) return status;
  LoadedModel out;
  out.served.tokenizer = served.tokenizer;
  out.served.chat = served.chat;
  out.served.classify = served.classify;
  if (spec.has_classify()) {
    absl::StatusOr<ClassifySetup> setup =
        SetUpClassify(spec.classify(), *served.tokenizer);
    if (!setup.ok()) return setup.status();
    out.served.classify = *std::move(setup);
  }
  const absl::StatusOr<KvRules> rules =
      KvRulesOf(spec, base.heads(), served.description);
  if (!rules.ok()) return rules.status();
  absl::StatusOr<std::shared_ptr<const Variant>> variant =
      base.model->MakeVariant({.mask = HeadMaskOf(spec),
                               .mask_file = spec.heads().mask_file(),
                               .kv_dtype = rules->dtype,
                               .kv_head_rules = rules->heads});
  if (!variant.ok()) return variant.status();
  out.engine.model = base.model;
  out.engine.variant = *std::move(variant);
  out.engine.max_logits_rows = base.max_logits_rows;
  const absl::Status status = Finish(spec, *rules, &out);
  if (!status.ok()) return status;
  out.served.description.set_precision(served.description.precision());
  out.served.load_time = absl::Now() - start;
  return out;
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
  const auto take = [&models](const config::v1::ModelSpec& spec,
                              absl::StatusOr<LoadedModel> model) {
    if (!model.ok()) {
      models.failed.push_back(FailedModel::Of(spec, model.status()));
      return;
    }
    model->served.index = static_cast<int>(models.loaded.size());
    models.loaded.push_back(*std::move(model));
  };
  for (const config::v1::ModelSpec& spec : config.models()) {
    if (IsVariant(spec)) continue;
    if (spec.preload() == "off") {
      models.unloaded.push_back({.name = spec.name(), .base = {}});
    } else {
      take(spec, LoadModel(spec, options, backend));
    }
  }
  for (const config::v1::ModelSpec& spec : config.models()) {
    if (!IsVariant(spec)) continue;
    const std::string& name = spec.source().variant_of();
    const auto base = std::find_if(
        models.loaded.begin(), models.loaded.end(),
        [&](const LoadedModel& model) { return model.served.name == name; });
    const bool base_is_later = std::any_of(
        models.unloaded.begin(), models.unloaded.end(),
        [&](const LaterModel& model) { return model.name == name; });
    if (spec.preload() == "off" || base_is_later) {
      models.unloaded.push_back({.name = spec.name(), .base = name});
    } else if (base == models.loaded.end()) {
      take(spec, absl::FailedPreconditionError(absl::StrCat(
                     "source.variant_of: '", name, "' did not load")));
    } else {
      take(spec, LoadVariant(spec, base->engine, base->served));
    }
  }
  if (models.loaded.empty() && !models.failed.empty()) {
    return models.failed.front().status;
  }
  return models;
}

}  // namespace headcount
