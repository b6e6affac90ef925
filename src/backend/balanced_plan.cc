#include "backend/balanced_plan.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

int32_t RoundUpToBlock(int64_t tokens) {
  return static_cast<int32_t>((tokens + kBlockTokens - 1) / kBlockTokens *
                              kBlockTokens);
}

// What the rows of an item see of the tokens of a KV head: [kv_begin,
// gap_begin) and [gap_end, kv_end) of `item`. Where there is a sink and more
// that not all rows see, the gap is behind the sink, and may be empty: no part
// goes across.
struct Reach {
  WorkItem item;
  int32_t gap_begin = 0;
  int32_t gap_end = 0;

  int32_t tokens() const {
    return item.kv_end - item.kv_begin - (gap_end - gap_begin);
  }
};

Reach Whole(const KvHead& head, const StepSequence& sequence, WorkItem item,
            int32_t row) {
  const Retention& retention = head.retention;
  item.first_row = sequence.first_row + row;
  item.kv_end = sequence.past + row + item.num_rows;
  const int64_t first = retention.FirstSeen(sequence.past + row);
  const auto begin = static_cast<int32_t>(first / kBlockTokens * kBlockTokens);
  if (retention.sink == 0) {
    item.kv_begin = begin;
    return {item, begin, begin};
  }
  item.kv_begin = 0;
  if (retention.FirstSeen(item.kv_end - 1) <= retention.sink) {
    return {item, 0, 0};
  }
  return {item, retention.sink, std::max(retention.sink, begin)};
}

// Parts of what an item sees, one after the other.
class Parts {
 public:
  explicit Parts(const Reach& reach) : reach_(reach) {}

  // Tokens up to the gap, or to the end; 0: there are no more.
  int32_t left() const {
    const WorkItem& item = reach_.item;
    return (item.kv_begin < reach_.gap_begin ? reach_.gap_begin : item.kv_end) -
           item.kv_begin;
  }

  // The next so many, at most left().
  WorkItem Take(int32_t tokens) {
    WorkItem part = reach_.item;
    part.kv_end = part.kv_begin + tokens;
    reach_.item.kv_begin =
        part.kv_end == reach_.gap_begin ? reach_.gap_end : part.kv_end;
    return part;
  }

 private:
  Reach reach_;  // what is left
};

// Adds parts to a plan, and their merge.
class Splitter {
 public:
  Splitter(const Reach& whole, int32_t results, BalancedPlan* plan)
      : whole_(whole.item), parts_(whole), results_(results), plan_(*plan) {}

  int32_t left() const { return parts_.left(); }

  void Take(int32_t tokens, std::vector<WorkItem>* items) {
    WorkItem item = parts_.Take(tokens);
    if (merge_ < 0 && left() > 0) {
      merge_ = static_cast<int32_t>(plan_.merges.size());
      plan_.merges.push_back(
          {.kv_slot = whole_.kv_slot,
           .first_row = whole_.first_row,
           .num_rows = whole_.num_rows,
           .first_partial = static_cast<int32_t>(plan_.num_partials)});
    }
    if (merge_ >= 0) {
      item.merge = merge_;
      item.partial = static_cast<int32_t>(plan_.num_partials);
      plan_.num_partials += results_;
      ++plan_.merges[static_cast<size_t>(merge_)].num_splits;
    }
    items->push_back(item);
  }

 private:
  WorkItem whole_;
  Parts parts_;
  int32_t results_;
  BalancedPlan& plan_;
  int32_t merge_ = -1;
};

// Deals tokens out to workers, one after the other, each up to a quota.
class Dealer {
 public:
  Dealer(const BalancedPlanOptions& options, int64_t quota)
      : options_(options), quota_(quota), room_(quota) {}

  // What was dealt to workers that do not exist.
  int64_t excess() const { return excess_; }

  // How many of `left` tokens of a sequence the worker gets whose turn it is;
  // 0: none, and it is the next one's turn.
  int32_t Deal(int32_t left) {
    const int64_t room = room_ - options_.item_cost;
    int64_t tokens = left;
    if (left > room) {
      // A part that is shorter than the least, here or later, waits for a
      // worker that has room; a worker without anything takes it all the same.
      tokens = std::min(room, int64_t{left} - options_.min_tokens) /
               kBlockTokens * kBlockTokens;
      const bool idle = room_ == quota_;
      if (tokens < options_.min_tokens) {
        if (!idle) {
          ++workers_;
          room_ = quota_;
          return 0;
        }
        tokens = left < 2 * options_.min_tokens ? left : options_.min_tokens;
      }
    }
    const int64_t cost = tokens + options_.item_cost;
    room_ -= cost;
    if (workers_ > options_.workers) excess_ += cost;
    return static_cast<int32_t>(tokens);
  }

 private:
  const BalancedPlanOptions& options_;
  int64_t quota_;
  int64_t room_;
  int64_t workers_ = 1;
  int64_t excess_ = 0;
};

// What each KV head of each decoding row attends to.
std::vector<Reach> DecodeReaches(const LayerHeads& heads,
                                 absl::Span<const StepSequence> sequences) {
  std::vector<Reach> reaches;
  reaches.reserve(sequences.size() * heads.kv_heads.size());
  for (size_t s = 0; s < sequences.size(); ++s) {
    if (sequences[s].num_rows != 1) continue;
    for (size_t slot = 0; slot < heads.kv_heads.size(); ++slot) {
      const KvHead& head = heads.kv_heads[slot];
      // Mostly the same as of the head before.
      if (slot > 0 && head.retention == heads.kv_heads[slot - 1].retention) {
        reaches.push_back(reaches.back());
        reaches.back().item.kv_slot = static_cast<int32_t>(slot);
        continue;
      }
      reaches.push_back(Whole(head, sequences[s],
                              {.sequence = static_cast<int32_t>(s),
                               .kv_slot = static_cast<int32_t>(slot),
                               .num_rows = 1},
                              0));
    }
  }
  return reaches;
}

// A quota under which the workers are enough: the mean, or somewhat more,
// because every cut adds the cost of an item.
int64_t FindQuota(absl::Span<const Reach> reaches,
                  const BalancedPlanOptions& options) {
  int64_t cost = 0;
  for (const Reach& reach : reaches) {
    cost += reach.tokens() + options.item_cost;
  }
  int64_t quota =
      std::max<int64_t>((cost + options.workers - 1) / options.workers,
                        options.min_tokens + options.item_cost);
  while (true) {
    Dealer dealer(options, quota);
    for (const Reach& reach : reaches) {
      Parts parts(reach);
      while (parts.left() > 0) parts.Take(dealer.Deal(parts.left()));
    }
    if (dealer.excess() == 0) return quota;
    // A larger quota needs fewer cuts, too: half of the way is often enough.
    quota += dealer.excess() / (2 * options.workers) + kBlockTokens;
  }
}

void PlanDecode(const LayerHeads& heads,
                absl::Span<const StepSequence> sequences,
                const BalancedPlanOptions& options, BalancedPlan* plan) {
  plan->worker_begin.push_back(0);
  const std::vector<Reach> reaches = DecodeReaches(heads, sequences);
  Dealer dealer(options, FindQuota(reaches, options));
  for (const Reach& reach : reaches) {
    const KvHead& head =
        heads.kv_heads[static_cast<size_t>(reach.item.kv_slot)];
    Splitter splitter(reach, head.num_queries, plan);
    while (splitter.left() > 0) {
      const int32_t tokens = dealer.Deal(splitter.left());
      if (tokens == 0) {
        plan->worker_begin.push_back(static_cast<int32_t>(plan->decode.size()));
      } else {
        splitter.Take(tokens, &plan->decode);
      }
    }
  }
  plan->worker_begin.resize(static_cast<size_t>(options.workers) + 1,
                            static_cast<int32_t>(plan->decode.size()));
}

// Tiles of rows of sequences that compute several.
std::vector<Reach> MakeTiles(const LayerHeads& heads,
                             absl::Span<const StepSequence> sequences,
                             const BalancedPlanOptions& options) {
  std::vector<Reach> tiles;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const StepSequence& sequence = sequences[s];
    if (sequence.num_rows <= 1) continue;
    for (size_t slot = 0; slot < heads.kv_heads.size(); ++slot) {
      const KvHead& head = heads.kv_heads[slot];
      const int32_t rows = std::max(1, options.tile_queries / head.num_queries);
      for (int32_t row = 0; row < sequence.num_rows; row += rows) {
        tiles.push_back(
            Whole(head, sequence,
                  {.sequence = static_cast<int32_t>(s),
                   .kv_slot = static_cast<int32_t>(slot),
                   .num_rows = std::min(rows, sequence.num_rows - row)},
                  row));
      }
    }
  }
  return tiles;
}

void PlanTiles(const LayerHeads& heads,
               absl::Span<const StepSequence> sequences,
               const BalancedPlanOptions& options, BalancedPlan* plan) {
  const std::vector<Reach> tiles = MakeTiles(heads, sequences, options);
  int64_t tokens = 0;
  for (const Reach& tile : tiles) tokens += tile.tokens();
  // Few tiles of long sequences leave workers idle: they are split.
  const bool few = static_cast<int32_t>(tiles.size()) < options.workers;
  const int32_t most = RoundUpToBlock(
      std::max<int64_t>(4 * options.min_tokens,
                        (tokens + options.workers - 1) / options.workers));
  for (const Reach& tile : tiles) {
    const KvHead& head = heads.kv_heads[static_cast<size_t>(tile.item.kv_slot)];
    Splitter splitter(tile, tile.item.num_rows * head.num_queries, plan);
    while (splitter.left() > 0) {
      const int32_t parts = few ? (splitter.left() + most - 1) / most : 1;
      const int32_t part =
          RoundUpToBlock((splitter.left() + parts - 1) / parts);
      splitter.Take(std::min(splitter.left(), part), &plan->tiles);
    }
  }
  std::sort(plan->tiles.begin(), plan->tiles.end(),
            [](const WorkItem& a, const WorkItem& b) {
              const int32_t tokens_a = a.kv_end - a.kv_begin;
              const int32_t tokens_b = b.kv_end - b.kv_begin;
              if (tokens_a != tokens_b) return tokens_a > tokens_b;
              return std::tie(a.first_row, a.kv_slot, a.kv_begin) <
                     std::tie(b.first_row, b.kv_slot, b.kv_begin);
            });
}

}  // namespace

BalancedPlanBounds BoundPlans(const LayerHeads& heads, int64_t rows,
                              int64_t context,
                              const BalancedPlanOptions& options) {
  int64_t queries = 0;
  int64_t most_queries = 0;
  int64_t sink_heads = 0;    // whose rows may have a gap behind the sink
  int64_t sink_queries = 0;  // of these
  for (const KvHead& head : heads.kv_heads) {
    queries += head.num_queries;
    most_queries = std::max<int64_t>(most_queries, head.num_queries);
    if (head.retention.sink == 0) continue;
    ++sink_heads;
    sink_queries += head.num_queries;
  }
  const int64_t workers = options.workers;
  const int64_t tile = std::max<int64_t>(options.tile_queries, most_queries);
  // A worker's list ends inside of at most one row's head: so many more parts
  // than heads that are split. Tiles are split where there are fewer than
  // workers, into as many parts as workers beside one more for each; a gap is
  // another cut.
  const int64_t cut = 2 * workers * most_queries + 3 * workers * tile;
  const int64_t gaps = 2 * rows * sink_queries;
  // Nor is any part but the last shorter than min_tokens.
  const int64_t parts = context / options.min_tokens + 3;
  return {.partials = std::min(cut + gaps, rows * queries * parts),
          .merges = 2 * workers + rows * sink_heads};
}

void PlanBalanced(const LayerHeads& heads,
                  absl::Span<const StepSequence> sequences,
                  const BalancedPlanOptions& options, BalancedPlan* plan) {
  CHECK(options.workers > 0) << options.workers << " workers";
  CHECK(options.min_tokens > 0 && options.min_tokens % kBlockTokens == 0)
      << "parts of " << options.min_tokens << " tokens";
  plan->decode.clear();
  plan->worker_begin.clear();
  plan->tiles.clear();
  plan->merges.clear();
  plan->num_partials = 0;
  PlanDecode(heads, sequences, options, plan);
  PlanTiles(heads, sequences, options, plan);
}

}  // namespace headcount
