// What `prune` asks: a server that runs, or one that it starts inside itself.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "cli/candidate_model.h"
#include "cli/client.h"
#include "cli/local_server.h"
#include "cli/local_weights.h"
#include "cli/prune_options.h"

namespace headcount {

// A server inside this process with the dense model, and its candidate where
// masks are tried as served. Members go in the opposite order.
struct InsideServer {
  std::string dense;  // its name
  std::unique_ptr<CandidateModel> candidate = nullptr;
  std::unique_ptr<LocalServer> server = nullptr;
  std::unique_ptr<Client> client = nullptr;
};

struct PruneSources {
  std::optional<InsideServer> inside;
  std::unique_ptr<Client> outside;  // unless the model is a path
  std::string model;                // its name, at client()
  std::string weights_path;         // empty: not on this machine
  std::optional<LocalWeights> weights;

  const Client& client() const {
    return outside != nullptr ? *outside : *inside->client;
  }
};

// Reads the weights and starts the server, if the flags want either. As
// LocalServer::Start after an Interrupt.
absl::StatusOr<PruneSources> OpenPruneSources(const PruneOptions& options);

}  // namespace headcount
