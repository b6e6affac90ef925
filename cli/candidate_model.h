// The same weights served once more, beside the dense model of a LocalServer,
// with a mask and a repair that change: what is tried before a mask file is
// written.
//
//   auto candidate = CandidateModel::Create(dense_spec);
//   auto server = LocalServer::Start({dense_spec, (*candidate)->spec()});
//   status = (*candidate)->Serve(mask, repair, client, &calls);
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/client.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "headcount/config/v1/config.pb.h"
#include "prune/repair_search.h"

namespace headcount {

// Not thread-safe. Its folder, in the one for temporary files, goes with it.
class CandidateModel {
 public:
  static absl::StatusOr<std::unique_ptr<CandidateModel>> Create(
      config::v1::ModelSpec dense);
  CandidateModel(const CandidateModel&) = delete;
  CandidateModel& operator=(const CandidateModel&) = delete;
  ~CandidateModel();

  // For the server, which does not load it at start.
  const config::v1::ModelSpec& spec() const { return spec_; }

  // Loads it with that mask file, format heads/1, in the place of what it was,
  // and with that repair of it; empty: none.
  absl::Status Serve(Json mask, const std::vector<LayerRepair>& repair,
                     const Client& client, OpenCalls* calls);

 private:
  CandidateModel(config::v1::ModelSpec spec, std::string folder)
      : spec_(std::move(spec)), folder_(std::move(folder)) {}

  const config::v1::ModelSpec spec_;
  const std::string folder_;
  bool loaded_ = false;
};

}  // namespace headcount
