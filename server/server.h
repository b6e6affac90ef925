// The server: models, engine, gRPC services and the metrics port.
//
//   absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(config);
//   absl::Status status = (*server)->Start();
//   WaitForTerminationSignal();        // server/signals.h
//   (*server)->Drain();                // then exit 0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "headcount/config/v1/config.pb.h"
#include "server/log.h"
#include "server/model_setup.h"

namespace headcount {

// Thread-safe, except that Start and Drain are called once each, in this order.
class Server {
 public:
  // Checks `config`, loads the models and reserves the KV pool. No port is
  // open yet. A model that does not load is an error if none does; otherwise
  // the others are served, and Start logs why it is not. A server that serves
  // the process it is in, and nobody else, has less to log.
  static absl::StatusOr<std::unique_ptr<Server>> Create(
      const config::v1::ServerConfig& config,
      LogLevel least_logged = LogLevel::kInfo);
  // The same around an engine that exists; `served` in the order of its list.
  // Config models are not looked at.
  static absl::StatusOr<std::unique_ptr<Server>> CreateAround(
      const config::v1::ServerConfig& config, std::unique_ptr<Engine> engine,
      std::vector<ServedModel> served, std::vector<FailedModel> failed = {});
  // Ends everything at once if Drain was not called.
  ~Server();

  // Opens both ports and starts the engine. FailedPrecondition, naming the
  // flag, when a port is in use.
  absl::Status Start();

  // host:port with the real port where 0 was asked for. Valid after Start.
  const std::string& grpc_address() const;
  const std::string& metrics_address() const;
  // Where models run, such as "cpu (AVX3, 2 threads)".
  const std::string& device() const;
  int64_t kv_pool_bytes() const;
  // Unavailable once the device has failed for good. The process has then been
  // sent SIGTERM.
  absl::Status device_status() const;
  // As they are now: those that answer, and those that did not load.
  std::vector<std::shared_ptr<const ServedModel>> models() const;
  std::vector<FailedModel> failed_models() const;

  // Reports NOT_SERVING, accepts requests for drain.grace, refuses them from
  // then on, lets what runs end until drain.deadline, ends the rest with
  // UNAVAILABLE and closes both ports. Blocks until all that is done.
  void Drain();

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace headcount
