#include "model/model.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "format/checkpoint.h"
#include "model/at_path.h"
#include "model/decoder.h"
#include "model/heads_file.h"
#include "model/pruned_checkpoint.h"
#include "model/weights.h"

namespace headcount {
namespace {

absl::StatusOr<HeadLayout> LayoutOf(const ModelConfig& config,
                                    const HeadMask& mask, KvDtype kv_dtype,
                                    const KvHeadRules& kv_head_rules) {
  return HeadLayout::Create({.layers = config.heads,
                             .head_dim = config.head_dim,
                             .mask = mask,
                             .kv_dtype = kv_dtype,
                             .kv_head_rules = kv_head_rules});
}

absl::Status CheckKernels(const HeadLayout& layout, const Backend& backend) {
  for (const LayerHeads& layer : layout.layers()) {
    for (const KvHead& head : layer.kv_heads) {
      absl::Status status = backend.CheckHeads(layout.head_dim(), head.dtype);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

struct Model::Impl {
  Backend* backend = nullptr;
  std::string path;
  ModelConfig config;
  std::shared_ptr<const Variant> whole;
  std::string sha256;
  Weights weights;
  std::unique_ptr<Decoder> decoder;  // refers to the members above
};

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const ModelOptions& options,
                                                   Backend* backend) {
  absl::StatusOr<PrunedCheckpoint> files =
      OpenPruned({.path = options.path,
                  .mask = options.mask,
                  .mask_file = options.mask_file,
                  .kv_dtype = options.kv_dtype,
                  .kv_head_rules = options.kv_head_rules});
  if (!files.ok()) return files.status();
  const HeadLayout& kept = files->layout;
  const absl::Status kernels = CheckKernels(kept, *backend);
  if (!kernels.ok()) return AtPath(options.path, kernels);
  absl::StatusOr<std::shared_ptr<const Variant>> whole =
      Variant::Create(kept, kept);
  if (!whole.ok()) return AtPath(options.path, whole.status());

  auto impl = std::make_unique<Impl>();
  impl->backend = backend;
  impl->path = options.path;
  impl->config = std::move(files->config);
  impl->sha256 = std::move(files->sha256);
  impl->whole = *std::move(whole);
  absl::StatusOr<Weights> weights =
      LoadWeights(impl->config, impl->whole->layout(),
                  {.checkpoint = &files->checkpoint,
                   .repair = files->repair ? &*files->repair : nullptr,
                   .progress = options.progress},
                  options.precision, backend);
  if (!weights.ok()) return AtPath(options.path, weights.status());
  impl->weights = *std::move(weights);

  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Create({.config = &impl->config,
                       .whole = impl->whole.get(),
                       .weights = &impl->weights,
                       .backend = backend},
                      options.max_step_tokens, options.max_logits_rows);
  if (!decoder.ok()) return AtPath(options.path, decoder.status());
  impl->decoder = *std::move(decoder);
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

absl::StatusOr<std::shared_ptr<const Variant>> Model::MakeVariant(
    const VariantOptions& options) const {
  HeadMask mask = options.mask;
  KvHeadRules rules = options.kv_head_rules;
  const absl::StatusOr<HeadsFile> file =
      JoinMaskFile(options.mask_file, impl_->config, &mask, &rules);
  if (!file.ok()) return file.status();
  if (!file->repair.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.mask_file,
        ": repair: a variant shares the output projections of its base, so "
        "they cannot be repaired; serve it with weights of its own "
        "(source.path)"));
  }
  if (!file->base_sha256.empty()) {
    std::string sha256 = impl_->sha256;
    if (sha256.empty()) {
      const absl::StatusOr<Checkpoint> checkpoint =
          Checkpoint::Open(impl_->path);
      if (!checkpoint.ok()) return checkpoint.status();
      absl::StatusOr<std::string> computed = checkpoint->Sha256();
      if (!computed.ok()) return computed.status();
      sha256 = *std::move(computed);
    }
    const absl::Status same =
        CheckMadeFor(options.mask_file, file->base_sha256, "its base", sha256);
    if (!same.ok()) return same;
  }
  // What no weights of this checkpoint run needs no second mention.
  JoinMask(impl_->config.pruned_heads, &mask);
  if (options.mask.empty() && options.mask_file.empty())
    mask = MaskOf(layout());
  absl::StatusOr<HeadLayout> kept =
      LayoutOf(impl_->config, mask, options.kv_dtype, rules);
  if (!kept.ok()) return kept.status();
  const absl::Status kernels = CheckKernels(*kept, *impl_->backend);
  if (!kernels.ok()) return kernels;
  return Variant::Create(layout(), *std::move(kept));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelConfig& Model::config() const { return impl_->config; }
const HeadLayout& Model::layout() const { return impl_->whole->layout(); }
const std::vector<KvGeometry>& Model::geometries() const {
  return impl_->whole->geometries();
}
int64_t Model::kv_bytes_per_token() const {
  return impl_->whole->kv_bytes_per_token();
}
const std::shared_ptr<const Variant>& Model::whole() const {
  return impl_->whole;
}
int64_t Model::weight_bytes() const { return impl_->weights.resident_bytes; }
int64_t Model::workspace_bytes() const {
  return impl_->decoder->workspace_bytes();
}
int64_t Model::pruned_weight_bytes() const {
  return impl_->weights.pruned_bytes;
}
const std::string& Model::sha256() const { return impl_->sha256; }

absl::Status Model::ReserveSteps(const Variant& variant, int32_t max_context) {
  return impl_->decoder->ReserveSteps(variant, max_context);
}

absl::StatusOr<Logits> Model::Forward(const Batch& batch, void* arena) {
  return impl_->decoder->Forward(batch, arena);
}

}  // namespace headcount
