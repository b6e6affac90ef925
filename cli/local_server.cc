#include "cli/local_server.h"

#include <utility>

#include "server/config.h"

namespace headcount {

absl::StatusOr<std::unique_ptr<LocalServer>> LocalServer::Start(
    const std::vector<config::v1::ModelSpec>& models) {
  config::v1::ServerConfig config = DefaultServerConfig();
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen("127.0.0.1:0");
  config.set_calibration("on");
  // What is asked is timed, and asked again of other masks.
  config.set_prefix_cache("off");
  config.mutable_drain()->set_grace("0s");
  for (const config::v1::ModelSpec& model : models) {
    *config.add_models() = model;
  }
  absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Create(config, LogLevel::kWarning);
  if (!server.ok()) return server.status();
  for (const FailedModel& failed : (*server)->failed_models()) {
    if (failed.name == models.front().name()) return failed.status;
  }
  if (absl::Status status = (*server)->Start(); !status.ok()) return status;
  return std::unique_ptr<LocalServer>(new LocalServer(*std::move(server)));
}

}  // namespace headcount
