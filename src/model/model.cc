#include "model/model.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "format/checkpoint.h"
#include "model/at_path.h"
#include "model/decoder.h"
#include "model/heads_file.h"
#include "model/weights.h"

namespace headcount {
namespace {

void Join(const HeadMask& from, HeadMask* to) {
  for (const auto& [layer, heads] : from.pruned) {
    to->pruned[layer].insert(heads.begin(), heads.end());
  }
}

}  // namespace

struct Model::Impl {
  explicit Impl(HeadLayout head_layout) : layout(std::move(head_layout)) {}

  ModelConfig config;
  HeadLayout layout;
  std::vector<KvGeometry> geometries;
  int64_t kv_bytes_per_token = 0;
  std::string sha256;
  Weights weights;
  std::unique_ptr<Decoder> decoder;  // refers to the members above
};

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const ModelOptions& options,
                                                   Backend* backend) {
  absl::StatusOr<ModelConfig> config = ReadModelConfig(options.path);
  if (!config.ok()) return config.status();
  HeadMask mask = options.mask;
  Join(config->pruned_heads, &mask);
  std::string base_sha256;
  if (!options.mask_file.empty()) {
    absl::StatusOr<HeadsFile> file = ReadHeadsFile(options.mask_file, *config);
    if (!file.ok()) return file.status();
    Join(file->mask, &mask);
    base_sha256 = file->base_sha256;
  }
  absl::StatusOr<HeadLayout> layout =
      HeadLayout::Create({.layers = config->heads,
                          .head_dim = config->head_dim,
                          .mask = mask,
                          .kv_dtype = options.kv_dtype});
  if (!layout.ok()) return AtPath(options.path, layout.status());

  auto impl = std::make_unique<Impl>(*std::move(layout));
  impl->config = *std::move(config);
  for (size_t group = 0; group < impl->layout.groups().size(); ++group) {
    absl::StatusOr<KvGeometry> geometry =
        KvGeometry::Create(impl->layout, static_cast<int>(group));
    if (!geometry.ok()) return AtPath(options.path, geometry.status());
    impl->kv_bytes_per_token += geometry->bytes_per_token();
    impl->geometries.push_back(*std::move(geometry));
  }

  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.path);
  if (!checkpoint.ok()) return checkpoint.status();
  if (!base_sha256.empty()) {
    absl::StatusOr<std::string> sha256 = checkpoint->Sha256();
    if (!sha256.ok()) return sha256.status();
    if (*sha256 != base_sha256) {
      return absl::InvalidArgumentError(absl::StrCat(
          options.mask_file, ": base.sha256: made for weights ", base_sha256,
          ", but those of ", options.path, " are ", *sha256));
    }
    impl->sha256 = *std::move(sha256);
  }
  absl::StatusOr<Weights> weights = LoadWeights(
      impl->config, impl->layout, *checkpoint, options.precision, backend);
  if (!weights.ok()) return AtPath(options.path, weights.status());
  impl->weights = *std::move(weights);

  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Create({.config = &impl->config,
                       .layout = &impl->layout,
                       .geometries = impl->geometries,
                       .weights = &impl->weights,
                       .backend = backend},
                      options.max_step_tokens, options.max_logits_rows);
  if (!decoder.ok()) return AtPath(options.path, decoder.status());
  impl->decoder = *std::move(decoder);
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelConfig& Model::config() const { return impl_->config; }
const HeadLayout& Model::layout() const { return impl_->layout; }
const std::vector<KvGeometry>& Model::geometries() const {
  return impl_->geometries;
}
int64_t Model::kv_bytes_per_token() const { return impl_->kv_bytes_per_token; }
int64_t Model::weight_bytes() const { return impl_->weights.resident_bytes; }
int64_t Model::workspace_bytes() const {
  return impl_->decoder->workspace_bytes();
}
int64_t Model::pruned_weight_bytes() const {
  return impl_->weights.pruned_bytes;
}
const std::string& Model::sha256() const { return impl_->sha256; }

absl::StatusOr<Logits> Model::Forward(const Batch& batch, void* arena) {
  return impl_->decoder->Forward(batch, arena);
}

}  // namespace headcount
