#include "cli/prune_sources.h"

#include <utility>
#include <vector>

#include "server/config.h"

namespace headcount {
namespace {

absl::StatusOr<InsideServer> StartInside(const config::v1::ModelSpec& dense,
                                         const PruneOptions& options) {
  InsideServer inside{.dense = dense.name()};
  std::vector<config::v1::ModelSpec> models = {dense};
  models.front().set_preload("on");
  if (options.repair || options.latency_texts > 0) {
    absl::StatusOr<std::unique_ptr<CandidateModel>> candidate =
        CandidateModel::Create(dense);
    if (!candidate.ok()) return candidate.status();
    inside.candidate = *std::move(candidate);
    models.push_back(inside.candidate->spec());
  }
  absl::StatusOr<std::unique_ptr<LocalServer>> server =
      LocalServer::Start(models);
  if (!server.ok()) return server.status();
  inside.server = *std::move(server);
  ClientOptions client = options.client;
  client.address = inside.server->address();
  inside.client = std::make_unique<Client>(std::move(client));
  return inside;
}

}  // namespace

absl::StatusOr<PruneSources> OpenPruneSources(const PruneOptions& options) {
  PruneSources sources;
  std::string weights = options.weights;
  const bool is_path = IsModelPath(options.model);
  if (is_path || options.repair) {
    absl::StatusOr<config::v1::ModelSpec> spec =
        ReadModelSpec(is_path ? options.model : options.weights);
    if (!spec.ok()) return spec.status();
    // A YAML file names weights elsewhere.
    if (is_path && weights.empty()) weights = spec->source().path();
    absl::StatusOr<InsideServer> inside = StartInside(*spec, options);
    if (!inside.ok()) return inside.status();
    sources.inside = *std::move(inside);
  }
  if (is_path) {
    sources.model = sources.inside->dense;
  } else {
    sources.model = options.model;
    sources.outside = std::make_unique<Client>(options.client);
  }
  sources.weights_path = weights;
  if (weights.empty()) return sources;
  absl::StatusOr<LocalWeights> read = ReadLocalWeights(weights);
  if (!read.ok()) return read.status();
  sources.weights = *std::move(read);
  return sources;
}

}  // namespace headcount
