// A model that is configured but did not load. The server serves the others
// and says of this one why it is missing.
//
//   models.failed.push_back(FailedModel::Of(spec, status));
#pragma once

#include <string>

#include "absl/status/status.h"
#include "headcount/config/v1/config.pb.h"
#include "server/log.h"

namespace headcount {

struct FailedModel {
  std::string name;
  absl::Status status;  // names the model; for the operator: it has paths
  // For clients: files by their names, no paths; valid UTF-8.
  std::string error;
  std::string base = {};  // whose variant it would be; empty: nobody's

  // `status` is that of loading `spec`, without the model's name.
  static FailedModel Of(const config::v1::ModelSpec& spec,
                        const absl::Status& status);

  void WriteTo(const Log& log) const;
};

}  // namespace headcount
