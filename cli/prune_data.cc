#include "cli/prune_data.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "format/sha256.h"
#include "prune/seeded_random.h"

namespace headcount {
namespace {

absl::Status AddFile(const std::string& path, const std::string& field,
                     const std::string& split,
                     std::vector<LabelledText>* texts) {
  absl::StatusOr<std::vector<LabelledText>> read =
      ReadLabelledTexts(path, field);
  if (!read.ok()) return read.status();
  for (LabelledText& text : *read) {
    if (!split.empty()) text.split = split;
    texts->push_back(std::move(text));
  }
  return absl::OkStatus();
}

// Of a text that names none.
absl::StatusOr<Split> SplitByHash(const std::string& text) {
  const absl::StatusOr<std::string> hash = Sha256Hex(text);
  if (!hash.ok()) return hash.status();
  const uint64_t draw = std::stoull(hash->substr(0, 8), nullptr, 16) % 10;
  return draw < 3 ? Split::kRank : draw < 6 ? Split::kSelect : Split::kTest;
}

absl::StatusOr<Split> SplitOf(const LabelledText& text, PruneData* data) {
  for (int i = 0; i < kSplits; ++i) {
    if (text.split == SplitName(static_cast<Split>(i))) {
      return static_cast<Split>(i);
    }
  }
  if (!text.split.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("split \"", text.split.substr(0, 40),
                     "\" is not one of rank, select, test"));
  }
  data->split_by_hash = true;
  return SplitByHash(text.text);
}

absl::Status Distribute(std::vector<LabelledText> texts, PruneData* data) {
  std::map<std::string, Split> seen;
  for (LabelledText& text : texts) {
    const absl::StatusOr<Split> split = SplitOf(text, data);
    if (!split.ok()) return split.status();
    const auto [place, is_new] =
        seen.insert({absl::StrCat(text.text, "\n", text.target), *split});
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the same text is in ", SplitName(place->second), " and in ",
          SplitName(*split), ": \"", text.text.substr(0, 40),
          "...\"; a test on seen data is none, so leave one of them out"));
    }
    data->splits[static_cast<size_t>(*split)].push_back(std::move(text));
  }
  return absl::OkStatus();
}

// Which metric select and test allow: all examples or none say what is
// expected.
absl::StatusOr<Metric> MetricOf(const PruneData& data) {
  int64_t all = 0;
  int64_t labels = 0;
  int64_t targets = 0;
  for (const Split split : {Split::kSelect, Split::kTest}) {
    for (const LabelledText& text : data.of(split)) {
      ++all;
      labels += text.label.empty() || !text.target.empty() ? 0 : 1;
      targets += text.target.empty() ? 0 : 1;
    }
  }
  if (targets == all) return Metric::kLogprob;
  if (targets > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        targets, " of ", all,
        " examples of select and test have a \"target\": give all one, or "
        "none"));
  }
  if (labels == all) return Metric::kAccuracy;
  if (labels == 0) return Metric::kKl;
  return absl::InvalidArgumentError(
      absl::StrCat(labels, " of ", all,
                   " examples of select and test have a \"label\": give all "
                   "one, or none"));
}

// Ranking needs no labels, but it has to know where answers are compared.
absl::Status CheckRank(const PruneData& data) {
  for (const LabelledText& text : data.of(Split::kRank)) {
    if (data.metric != Metric::kLogprob || !text.target.empty()) continue;
    return absl::InvalidArgumentError(
        "split rank: a text has no \"target\", but those of select and test "
        "have: give every text one");
  }
  return absl::OkStatus();
}

absl::Status CheckLabels(const PruneData& data,
                         const std::vector<std::string>& labels) {
  for (const std::vector<LabelledText>& split : data.splits) {
    for (const LabelledText& text : split) {
      if (text.label.empty() || !text.target.empty() ||
          std::find(labels.begin(), labels.end(), text.label) != labels.end()) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "label \"", text.label.substr(0, 40),
          "\" of the data is not one of the model's: ",
          labels.empty() ? "it has none; set classify.labels in its "
                           "headcount.yaml"
                         : absl::StrJoin(labels, ", ")));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string SplitName(Split split) {
  switch (split) {
    case Split::kRank:
      return "rank";
    case Split::kSelect:
      return "select";
    case Split::kTest:
      return "test";
  }
  return "";
}

absl::StatusOr<std::string> HashOf(const std::vector<LabelledText>& texts) {
  std::string all;
  for (const LabelledText& text : texts) {
    absl::StrAppend(&all, text.text.size(), " ", text.label.size(), " ",
                    text.target.size(), "\n", text.text, text.label,
                    text.target, absl::StrJoin(text.prompt_tokens, " "));
  }
  return Sha256Hex(all);
}

absl::StatusOr<PruneData> ReadPruneData(const PruneFiles& files,
                                        const std::vector<std::string>& labels,
                                        int64_t most_ranked, uint64_t seed) {
  std::vector<LabelledText> texts;
  absl::Status status;
  if (!files.data.empty()) {
    status = AddFile(files.data, files.field, "", &texts);
  }
  for (int i = 0; i < kSplits && status.ok(); ++i) {
    const std::string& path = files.splits[static_cast<size_t>(i)];
    if (path.empty()) continue;
    status =
        AddFile(path, files.field, SplitName(static_cast<Split>(i)), &texts);
  }
  if (status.ok()) status = PutIntoFrame(files.frame, &texts);
  if (!status.ok()) return status;

  PruneData data;
  status = Distribute(std::move(texts), &data);
  if (!status.ok()) return status;
  for (int i = 0; i < kSplits; ++i) {
    if (!data.splits[static_cast<size_t>(i)].empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "no example is in split ", SplitName(static_cast<Split>(i)),
        ": name a file for each split, or give --data enough"));
  }
  status = CheckLabels(data, labels);
  if (!status.ok()) return status;
  const absl::StatusOr<Metric> metric = MetricOf(data);
  if (!metric.ok()) return metric.status();
  data.metric = *metric;
  status = CheckRank(data);
  if (!status.ok()) return status;
  std::vector<LabelledText>& rank = data.splits[0];
  if (static_cast<int64_t>(rank.size()) > most_ranked) {
    SeededRandom(seed).Shuffle(&rank);
    const auto end = rank.begin() + most_ranked;
    data.not_ranked.assign(std::move_iterator(end),
                           std::move_iterator(rank.end()));
    rank.erase(end, rank.end());
  }
  return data;
}

}  // namespace headcount
