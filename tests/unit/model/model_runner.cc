#include "tests/unit/model/model_runner.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace headcount {

ModelRunner::ModelRunner(Backend* backend, const ModelRunnerOptions& options)
    : backend_(backend) {
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(options.model, backend);
  CHECK(model.ok()) << model.status();
  model_ = *std::move(model);
  // Slabs of a few blocks, so that sequences are scattered over the arena.
  int64_t slab_bytes = 64;
  int64_t block_bytes = 0;
  for (const KvGeometry& geometry : model_->geometries()) {
    slab_bytes = std::max(slab_bytes, 3 * geometry.block_bytes());
    block_bytes += geometry.block_bytes();
  }
  const int64_t capacity =
      KvGeometry::BlocksFor(options.pool_tokens) * block_bytes + slab_bytes;
  pool_ = std::make_unique<BlockPool>(
      BlockPoolOptions{.capacity_bytes = capacity, .slab_bytes = slab_bytes});
  Add(model_->whole());
  arena_ = *backend->Allocate(capacity);
}

size_t ModelRunner::AddVariant(const VariantOptions& options) {
  absl::StatusOr<std::shared_ptr<const Variant>> variant =
      model_->MakeVariant(options);
  CHECK(variant.ok()) << variant.status();
  Add(*std::move(variant));
  return variants_.size() - 1;
}

void ModelRunner::Add(std::shared_ptr<const Variant> variant) {
  std::vector<int64_t> sizes;
  for (const KvGeometry& geometry : variant->geometries()) {
    sizes.push_back(geometry.block_bytes());
  }
  std::vector<GroupId> groups = pool_->AddModel({}, sizes).value().groups;
  variants_.push_back({std::move(variant), std::move(groups)});
}

std::vector<LogitsRow> ModelRunner::Step(const std::vector<Feed>& feeds) {
  Batch batch;
  for (const Feed& feed : feeds) {
    Sequence& sequence = *feed.sequence;
    const Runnable& runs = variants_[sequence.variant];
    sequence.tables.resize(runs.groups.size());
    const auto tokens = static_cast<int32_t>(feed.tokens.size());
    BatchSequence& to = batch.sequences.emplace_back();
    if (sequence.variant > 0) to.variant = runs.variant.get();
    for (size_t g = 0; g < runs.groups.size(); ++g) {
      BlockTable& table = sequence.tables[g];
      const int64_t missing =
          KvGeometry::BlocksFor(sequence.past + tokens) - table.num_entries();
      std::vector<BlockRef> blocks =
          pool_->Allocate(runs.groups[g], static_cast<int>(missing));
      CHECK(static_cast<int64_t>(blocks.size()) == missing) << "pool too small";
      table.Append(std::move(blocks));
      to.blocks.push_back(table.offsets());
    }
    to.tokens = feed.tokens;
    to.past = sequence.past;
    to.logits_rows = feed.logits_rows;
    to.head_gates = sequence.gates;
    to.statistics = sequence.statistics;
    to.statistics_from = sequence.statistics_from;
    sequence.past += tokens;
  }
  absl::StatusOr<Logits> logits = model_->Forward(batch, arena_->data());
  CHECK(logits.ok()) << logits.status();
  for (const Feed& feed : feeds) {
    const std::vector<KvGroup>& groups =
        variants_[feed.sequence->variant].variant->layout().groups();
    for (size_t g = 0; g < groups.size(); ++g) {
      const Retention& retention = groups[g].retention;
      feed.sequence->tables[g].Slide(retention.FirstSeen(feed.sequence->past),
                                     /*num_tokens=*/0, retention.sink);
    }
  }
  std::vector<LogitsRow> rows(static_cast<size_t>(logits->rows));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].resize(static_cast<size_t>(logits->vocab));
    backend_->CopyToHost(logits->data + static_cast<int64_t>(i) * logits->vocab,
                         logits->vocab * static_cast<int64_t>(sizeof(float)),
                         rows[i].data());
  }
  return rows;
}

std::vector<LogitsRow> ModelRunner::Prefill(Sequence* sequence,
                                            absl::Span<const int32_t> ids,
                                            int32_t chunk) {
  std::vector<LogitsRow> rows;
  while (!ids.empty()) {
    const auto tokens = ids.subspan(0, static_cast<size_t>(chunk));
    ids.remove_prefix(tokens.size());
    for (LogitsRow& row :
         Step({{sequence, tokens, static_cast<int32_t>(tokens.size())}})) {
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<LogitsRow> ModelRunner::RunAlone(absl::Span<const int32_t> ids,
                                             int32_t chunk, size_t variant) {
  Sequence sequence{.variant = variant};
  return Prefill(&sequence, ids, chunk);
}

std::vector<std::vector<LogitsRow>> ModelRunner::RunTogether(
    const std::vector<std::vector<int32_t>>& prompts,
    const std::vector<int32_t>& chunks, const std::vector<size_t>& variants) {
  std::vector<Sequence> sequences(prompts.size());
  for (size_t i = 0; i < variants.size(); ++i) {
    sequences[i].variant = variants[i];
  }
  std::vector<std::vector<LogitsRow>> rows(prompts.size());
  while (true) {
    std::vector<Feed> feeds;
    std::vector<size_t> owners;  // of rows
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto rest = absl::MakeConstSpan(prompts[i])
                            .subspan(static_cast<size_t>(sequences[i].past));
      if (rest.empty()) continue;
      const auto tokens = rest.subspan(0, static_cast<size_t>(chunks[i]));
      feeds.push_back(
          {&sequences[i], tokens, static_cast<int32_t>(tokens.size())});
      owners.insert(owners.end(), tokens.size(), i);
    }
    if (feeds.empty()) return rows;
    std::vector<LogitsRow> step = Step(feeds);
    for (size_t row = 0; row < step.size(); ++row) {
      rows[owners[row]].push_back(std::move(step[row]));
    }
  }
}

std::vector<int32_t> ModelRunner::Greedy(absl::Span<const int32_t> ids,
                                         size_t steps) {
  Sequence sequence;
  std::vector<int32_t> tokens;
  std::vector<LogitsRow> rows = Step({{&sequence, ids, 1}});
  while (true) {
    const LogitsRow& row = rows.front();
    tokens.push_back(static_cast<int32_t>(
        std::max_element(row.begin(), row.end()) - row.begin()));
    if (tokens.size() == steps) return tokens;
    const int32_t last[] = {tokens.back()};
    rows = Step({{&sequence, last, 1}});
  }
}

}  // namespace headcount
