#include "cli/prune_flags.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace headcount {
namespace {

constexpr double kDefaultPoints = 1;
constexpr double kDefaultNats = 0.05;

}  // namespace

absl::StatusOr<double> ParseShare(const std::string& text) {
  absl::string_view digits = text;
  double percent = 0;
  if (!absl::ConsumeSuffix(&digits, "%") ||
      !absl::SimpleAtod(digits, &percent) || !(percent > 0 && percent <= 100)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a share over 0% and up to 100%, such as 60%"));
  }
  return percent / 100;
}

CLI::Option* AddShare(CLI::App& app, const std::string& name,
                      std::function<void(double)> set,
                      const std::string& description) {
  auto read = [name, set = std::move(set)](const std::string& text) {
    const absl::StatusOr<double> share = ParseShare(text);
    if (!share.ok()) {
      throw CLI::ValidationError(name, std::string(share.status().message()));
    }
    set(*share);
  };
  return app.add_option_function<std::string>(name, read, description)
      ->type_name("SHARE");
}

absl::StatusOr<double> ParseLoss(const std::string& text, Metric metric) {
  const bool accuracy = metric == Metric::kAccuracy;
  if (text.empty()) return accuracy ? kDefaultPoints / 100 : kDefaultNats;
  absl::string_view digits = text;
  const bool fits = absl::ConsumeSuffix(&digits, accuracy ? "pt" : "nats");
  double value = 0;
  if (!fits || !absl::SimpleAtod(digits, &value) || !std::isfinite(value) ||
      value <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-loss: '", text,
        accuracy ? "' is not a loss of accuracy, such as 1pt or 0.5pt"
                 : "' is not a loss in nats, such as 0.05nats (the data has "
                   "no labels that points could be counted of)"));
  }
  return accuracy ? value / 100 : value;
}

}  // namespace headcount
