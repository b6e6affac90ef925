// Amounts as the flags of `prune` and `verify` spell them.
#pragma once

#include <functional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "prune/comparison.h"

namespace headcount {

// "60%" -> 0.6; over 0 %, at most 100 %.
absl::StatusOr<double> ParseShare(const std::string& text);

// A share as the value of `name`.
CLI::Option* AddShare(CLI::App& app, const std::string& name,
                      std::function<void(double)> set,
                      const std::string& description);

// "1pt" -> 0.01 of accuracy, "0.02nats" of the other metrics; over 0. Empty:
// 1pt or 0.05nats. InvalidArgument, saying which unit fits, for another one.
absl::StatusOr<double> ParseLoss(const std::string& text, Metric metric);

}  // namespace headcount
