// What storing keys and values in fewer bits does to a real model's answers.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/golden/model_golden.h"
#include "tests/unit/model/logits_rows.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {
namespace {

// How far the answers are from those with f32 pages.
struct Difference {
  double logits = 0;        // root mean square, in standard deviations of a row
  double furthest = 0;      // of any logit, likewise
  double best_differs = 0;  // part of the rows with another best token

  friend std::ostream& operator<<(std::ostream& out, const Difference& d) {
    return out << "logits " << d.logits << " (furthest " << d.furthest
               << "), another best token in " << 100 * d.best_differs << " %";
  }
};

Difference Compare(const std::vector<LogitsRow>& found,
                   const std::vector<LogitsRow>& exact) {
  Difference difference;
  double squares = 0;
  int64_t count = 0;
  for (size_t row = 0; row < found.size(); ++row) {
    const double deviation = StandardDeviation(exact[row]);
    for (size_t i = 0; i < found[row].size(); ++i) {
      const double off =
          (double{found[row][i]} - double{exact[row][i]}) / deviation;
      squares += off * off;
      difference.furthest = std::max(difference.furthest, std::fabs(off));
      ++count;
    }
    const auto best = [](const LogitsRow& logits) {
      return std::max_element(logits.begin(), logits.end()) - logits.begin();
    };
    if (best(found[row]) != best(exact[row])) ++difference.best_differs;
  }
  difference.logits = std::sqrt(squares / static_cast<double>(count));
  difference.best_differs /= static_cast<double>(found.size());
  return difference;
}

struct Stored {
  KvDtype dtype;
  KvHeadRules heads;
  Difference most;
};

// The limits are about twice what was measured.
std::vector<Stored> Cases() {
  return {
      {KvDtype::kF16, {}, {4e-4, 6e-3, 0.02}},
      {KvDtype::kBf16, {}, {3e-3, 0.03, 0.03}},
      {KvDtype::kFp8E4m3, {}, {0.03, 0.3, 0.05}},
      {KvDtype::kInt8, {}, {7e-3, 0.08, 0.03}},
      {KvDtype::kInt8, {{0, {{1, {KvDtype::kF16}}}}}, {7e-3, 0.08, 0.03}},
      {KvDtype::kInt4, {}, {0.12, 1.0, 0.15}},
  };
}

GoldenModel Mailroom() {
  for (GoldenModel& model : ReadGoldenModels()) {
    if (model.name == "mailroom") return model;
  }
  return {};
}

TEST(KvDtypes, AnswersStayNearThoseWithFloat32Pages) {
  const GoldenModel golden = Mailroom();
  if (golden.path.empty()) GTEST_SKIP() << "other golden values";
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const auto rows_with = [&](KvDtype dtype, const KvHeadRules& heads) {
    ModelRunner runner(backend.get(), {.model = {.path = golden.path,
                                                 .kv_dtype = dtype,
                                                 .kv_head_rules = heads}});
    std::vector<LogitsRow> rows;
    for (const GoldenCase& one : golden.cases) {
      if (one.mask != "dense") continue;
      for (LogitsRow& row : runner.RunAlone(one.ids, 64)) {
        rows.push_back(std::move(row));
      }
    }
    return rows;
  };
  const std::vector<LogitsRow> exact = rows_with(KvDtype::kF32, {});
  ASSERT_GT(exact.size(), 100u);
  for (const Stored& stored : Cases()) {
    const Difference found =
        Compare(rows_with(stored.dtype, stored.heads), exact);
    std::cout << "kv dtypes: " << KvDtypeName(stored.dtype)
              << (stored.heads.empty() ? "" : " and others") << ": " << found
              << "\n";
    EXPECT_LE(found.logits, stored.most.logits);
    EXPECT_LE(found.furthest, stored.most.furthest);
    EXPECT_LE(found.best_differs, stored.most.best_differs);
  }
}

}  // namespace
}  // namespace headcount
