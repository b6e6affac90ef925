// Metric families put together by hand, for collectors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "prometheus/metric_family.h"

namespace headcount {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// A family under construction.
//
//   families.push_back(FamilyBuilder::Gauge("x_bytes", "What x holds.")
//                          .Add({{"state", "used"}}, used)
//                          .Build());
class FamilyBuilder {
 public:
  static FamilyBuilder Gauge(std::string name, std::string help);
  static FamilyBuilder Counter(std::string name, std::string help);

  FamilyBuilder& Add(const MetricLabels& labels, double value);
  prometheus::MetricFamily Build() { return std::move(family_); }

 private:
  FamilyBuilder(std::string name, std::string help,
                prometheus::MetricType type);

  prometheus::MetricFamily family_;
};

}  // namespace headcount
