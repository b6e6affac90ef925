#include "model/pruned_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/at_path.h"

namespace headcount {

void JoinMask(const HeadMask& from, HeadMask* to) {
  for (const auto& [layer, heads] : from.pruned) {
    to->pruned[layer].insert(heads.begin(), heads.end());
  }
}

absl::StatusOr<HeadsFile> JoinMaskFile(const std::string& mask_file,
                                       const ModelConfig& config,
                                       HeadMask* mask, KvHeadRules* rules) {
  if (mask_file.empty()) return HeadsFile();
  absl::StatusOr<HeadsFile> file = ReadHeadsFile(mask_file, config);
  if (!file.ok()) return file;
  JoinMask(file->mask, mask);
  for (const auto& [layer, heads] : file->streaming) {
    for (const auto& [head, of_file] : heads) {
      KvHeadRule& rule = (*rules)[layer][head];
      if (!rule.retention.has_value()) rule.retention = of_file.retention;
    }
  }
  return file;
}

absl::Status CheckMadeFor(const std::string& mask_file,
                          const std::string& made_for,
                          const std::string& weights,
                          const std::string& sha256) {
  if (sha256 == made_for) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(mask_file, ": base.sha256: made for weights ", made_for,
                   ", but those of ", weights, " are ", sha256));
}

absl::StatusOr<PrunedCheckpoint> OpenPruned(const PrunedSource& source) {
  absl::StatusOr<ModelConfig> config = ReadModelConfig(source.path);
  if (!config.ok()) return config.status();
  HeadMask mask = source.mask;
  JoinMask(config->pruned_heads, &mask);
  KvHeadRules rules = source.kv_head_rules;
  const absl::StatusOr<HeadsFile> file =
      JoinMaskFile(source.mask_file, *config, &mask, &rules);
  if (!file.ok()) return file.status();
  absl::StatusOr<HeadLayout> layout =
      HeadLayout::Create({.layers = config->heads,
                          .head_dim = config->head_dim,
                          .mask = mask,
                          .kv_dtype = source.kv_dtype,
                          .kv_head_rules = rules});
  if (!layout.ok()) return AtPath(source.path, layout.status());
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(source.path);
  if (!checkpoint.ok()) return checkpoint.status();
  std::string sha256;
  if (!file->base_sha256.empty()) {
    absl::StatusOr<std::string> computed = checkpoint->Sha256();
    if (!computed.ok()) return computed.status();
    sha256 = *std::move(computed);
    const absl::Status same =
        CheckMadeFor(source.mask_file, file->base_sha256, source.path, sha256);
    if (!same.ok()) return same;
  }
  std::optional<OutputRepair> repair;
  if (!file->repair.empty()) {
    absl::StatusOr<OutputRepair> opened =
        OutputRepair::Open(file->repair, *layout, config->hidden);
    if (!opened.ok()) return opened.status();
    repair = *std::move(opened);
  }
  return PrunedCheckpoint{*std::move(config), *std::move(layout),
                          *std::move(checkpoint), std::move(repair),
                          std::move(sha256)};
}

}  // namespace headcount
