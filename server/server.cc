#include "server/server.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backend/create_backend.h"
#include "base/check.h"
#include "base/human.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/resource_quota.h"
#include "heads/kv_geometry.h"
#include "server/calibration_service.h"
#include "server/config.h"
#include "server/device_watch.h"
#include "server/engine_collector.h"
#include "server/errors.h"
#include "server/health_service.h"
#include "server/inference_service.h"
#include "server/limits.h"
#include "server/listen_address.h"
#include "server/metrics_endpoint.h"
#include "server/model_lifecycle.h"
#include "server/model_service.h"
#include "server/process_collector.h"
#include "server/random_bits.h"
#include "server/serving.h"

namespace headcount {
namespace {

// What streams may still take to deliver, once nothing runs any more.
constexpr absl::Duration kShutdownTime = absl::Seconds(5);

std::unique_ptr<HealthService> MakeHealthService(const ModelTable& models,
                                                 bool calibration,
                                                 Metrics* metrics) {
  std::vector<std::string> names = {std::string(kInferenceServiceName),
                                    std::string(kModelServiceName)};
  if (calibration) names.emplace_back(kCalibrationServiceName);
  std::vector<std::string> not_serving;
  for (const ModelEntry& model : models.entries()) {
    (model.state == ModelState::kReady ? names : not_serving)
        .push_back(absl::StrCat("model/", model.name));
  }
  return std::make_unique<HealthService>(names, not_serving, metrics);
}

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

// Measured in gRPC 1.51: a compressed message is unpacked whole before any
// limit is looked at, and only a quota bounds what half-read messages hold.
void SetTransportLimits(grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("headcount");
  quota.Resize(static_cast<size_t>(kGrpcMemoryBytes));
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              kMaxStreamsPerConnection);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              Milliseconds(kKeepaliveTime));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(kKeepaliveTimeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      Milliseconds(kMinPingInterval));
  // A second server on the port must fail instead of sharing it.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

// The configuration with the bytes of the pool in place of a share.
absl::StatusOr<config::v1::ServerConfig> WithPoolBytes(
    config::v1::ServerConfig config, const Backend& backend) {
  const std::optional<double> share = PoolShareOf(config);
  if (!share) return config;
  const int64_t free = backend.FreeBytes();
  const auto wanted = static_cast<int64_t>(static_cast<double>(free) * *share);
  // Whole slabs: what is behind the last one would serve nobody.
  const int64_t slab = SlabBytes(wanted);
  const int64_t bytes = wanted / slab * slab;
  if (bytes == 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "kv_pool: ", config.kv_pool(), " of the ", FormatByteSize(free),
        " that the models leave free on ", backend.name(), " is less than ",
        FormatByteSize(slab), ", the least a pool can be"));
  }
  config.set_kv_pool(absl::StrCat(bytes, "B"));
  return config;
}

}  // namespace

struct Server::Impl {
  Impl(const config::v1::ServerConfig& server_config, LogLevel least_logged)
      : config(server_config),
        log(config.log_format() == "json" ? LogFormat::kJson : LogFormat::kText,
            &clock, least_logged) {}

  void SetUp(std::unique_ptr<Engine> its_engine,
             std::vector<ServedModel> served, std::vector<FailedModel> failed,
             const std::vector<LaterModel>& unloaded, std::string its_device);
  absl::Status OpenGrpc();
  absl::Status OpenMetrics();
  void Close(absl::Duration time_to_deliver);

  const config::v1::ServerConfig config;
  SystemClock clock;
  const Log log;
  std::string device;   // Backend::name()
  absl::Status no_gpu;  // see CreateBackend
  std::atomic<ServerState> state{ServerState::kStarting};
  std::unique_ptr<Engine> engine;
  std::optional<ModelTable> models;
  std::optional<Metrics> metrics;
  std::optional<Admission> admission;
  Serving serving;
  std::unique_ptr<HealthService> health;
  std::optional<ModelLifecycle> lifecycle;
  std::optional<DeviceWatch> watch;
  std::unique_ptr<InferenceService> inference;
  std::unique_ptr<ModelService> model_service;
  std::unique_ptr<CalibrationService> calibration;
  std::unique_ptr<grpc::Server> grpc_server;
  std::unique_ptr<MetricsEndpoint> metrics_endpoint;
  std::string grpc_address;
  std::string metrics_address;
  bool closed = false;
};

void Server::Impl::SetUp(std::unique_ptr<Engine> its_engine,
                         std::vector<ServedModel> served,
                         std::vector<FailedModel> failed,
                         const std::vector<LaterModel>& unloaded,
                         std::string its_device) {
  device = std::move(its_device);
  engine = std::move(its_engine);
  models.emplace(std::move(served), std::move(failed), unloaded);
  metrics.emplace(*models);
  admission.emplace(engine.get());
  serving = {.models = &*models,
             .lifecycle = nullptr,
             .engine = engine.get(),
             .admission = &*admission,
             .metrics = &*metrics,
             .log = &log,
             .clock = &clock,
             .options = EngineOptionsOf(config),
             .drain_deadline = DrainDeadlineOf(config),
             .admin = AdminOf(config),
             .begin_drain = [] { kill(getpid(), SIGTERM); }};
  const bool calibrates = config.calibration() == "on";
  health = MakeHealthService(*models, calibrates, &*metrics);
  lifecycle.emplace(config, engine.get(), &*models, health.get(), &log);
  serving.lifecycle = &*lifecycle;
  inference = std::make_unique<InferenceService>(&serving);
  model_service = std::make_unique<ModelService>(&serving);
  calibration = std::make_unique<CalibrationService>(&serving, calibrates);
  engine->SetStepObserver(&Metrics::ObserveStep, &*metrics);
  watch.emplace(DeviceWatch::Watched{.engine = engine.get(),
                                     .health = health.get(),
                                     .state = &state,
                                     .log = &log,
                                     .begin_drain = serving.begin_drain});
}

absl::Status Server::Impl::OpenGrpc() {
  absl::StatusOr<ListenAddress> address = ParseListenAddress(config.listen());
  if (!address.ok()) return InField("listen", address.status());
  // gRPC itself only says that it failed.
  const absl::StatusOr<ListenAddress> checked = CheckListenAddress(*address);
  if (!checked.ok()) return InField("listen", checked.status());

  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetTransportLimits(&builder);
  int port = 0;
  builder.AddListeningPort(checked->ToString(),
                           grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(inference.get());
  builder.RegisterService(model_service.get());
  builder.RegisterService(calibration.get());
  builder.RegisterService(health.get());
  grpc_server = builder.BuildAndStart();
  if (grpc_server == nullptr || port == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("listen: ", address->ToString(), " cannot be served"));
  }
  address->port = static_cast<uint16_t>(port);
  grpc_address = address->ToString();
  return absl::OkStatus();
}

absl::Status Server::Impl::OpenMetrics() {
  const absl::StatusOr<ListenAddress> address =
      ParseListenAddress(config.metrics_listen());
  if (!address.ok()) return InField("metrics_listen", address.status());
  absl::StatusOr<std::unique_ptr<MetricsEndpoint>> endpoint =
      MetricsEndpoint::Open(
          *address,
          {std::make_shared<EngineCollector>(engine.get(), &*models,
                                             device.substr(0, device.find(' ')),
                                             &state),
           std::make_shared<ProcessCollector>(), metrics->registry()});
  if (!endpoint.ok()) return InField("metrics_listen", endpoint.status());
  metrics_endpoint = *std::move(endpoint);
  metrics_address = metrics_endpoint->address().ToString();
  return absl::OkStatus();
}

// Calls end first, because each waits for the engine's last word.
void Server::Impl::Close(absl::Duration time_to_deliver) {
  if (closed) return;
  closed = true;
  state = ServerState::kDraining;
  watch->Stop();
  admission->Close();
  engine->Stop();
  lifecycle->Stop();
  health->EndWatches();
  if (grpc_server != nullptr) {
    grpc_server->Shutdown(absl::ToChronoTime(absl::Now() + time_to_deliver));
    grpc_server->Wait();
  }
  metrics_endpoint.reset();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(
    const config::v1::ServerConfig& config, LogLevel least_logged) {
  absl::Status status = ValidateServerConfig(config);
  if (!status.ok()) return status;
  absl::Status no_gpu;
  absl::StatusOr<std::unique_ptr<Backend>> created = CreateBackend(
      *ParseDeviceName(config.device()), config.threads(), &no_gpu);
  if (!created.ok()) {
    return absl::Status(created.status().code(),
                        absl::StrCat("device: ", created.status().message()));
  }
  std::unique_ptr<Backend> backend = *std::move(created);
  absl::StatusOr<LoadedModels> models = LoadModels(config, backend.get());
  if (!models.ok()) return models.status();
  const absl::StatusOr<config::v1::ServerConfig> sized =
      WithPoolBytes(config, *backend);
  if (!sized.ok()) return sized.status();
  auto impl = std::make_unique<Impl>(*sized, least_logged);
  impl->no_gpu = no_gpu;
  std::vector<EngineModel> engine_models;
  std::vector<ServedModel> served;
  for (LoadedModel& model : models->loaded) {
    engine_models.push_back(std::move(model.engine));
    served.push_back(std::move(model.served));
  }
  const std::string backend_name = backend->name();
  EngineOptions options = EngineOptionsOf(*sized);
  options.prefix_key = SecretKey();
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(std::move(options), std::move(backend),
                     std::move(engine_models), &impl->clock);
  if (!engine.ok()) return engine.status();
  impl->SetUp(*std::move(engine), std::move(served), std::move(models->failed),
              models->unloaded, backend_name);
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<Server>> Server::CreateAround(
    const config::v1::ServerConfig& config, std::unique_ptr<Engine> engine,
    std::vector<ServedModel> served, std::vector<FailedModel> failed) {
  const absl::Status status = ValidateServerKeys(config);
  if (!status.ok()) return status;
  auto impl = std::make_unique<Impl>(config, LogLevel::kInfo);
  impl->SetUp(std::move(engine), std::move(served), std::move(failed),
              /*unloaded=*/{}, "cpu");
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() { impl_->Close(absl::ZeroDuration()); }

absl::Status Server::Start() {
  CHECK(impl_->state == ServerState::kStarting);
  if (!impl_->no_gpu.ok()) {
    impl_->log.Warning("no GPU is used",
                       LogFields().Add("reason", impl_->no_gpu.message()));
  }
  for (const FailedModel& model : failed_models()) model.WriteTo(impl_->log);
  // Metrics first: a server that answers can be watched.
  absl::Status status = impl_->OpenMetrics();
  if (!status.ok()) return status;
  impl_->engine->Start();
  status = impl_->OpenGrpc();
  if (!status.ok()) return status;
  impl_->state = ServerState::kServing;
  impl_->health->SetServing(true);
  impl_->watch->Start();
  impl_->log.Info("serving", LogFields()
                                 .Add("listen", impl_->grpc_address)
                                 .Add("metrics", impl_->metrics_address)
                                 .Add("device", impl_->device));
  return absl::OkStatus();
}

const std::string& Server::grpc_address() const { return impl_->grpc_address; }

const std::string& Server::metrics_address() const {
  return impl_->metrics_address;
}

const std::string& Server::device() const { return impl_->device; }

int64_t Server::kv_pool_bytes() const {
  return EngineOptionsOf(impl_->config).kv_pool_bytes;
}

std::vector<std::shared_ptr<const ServedModel>> Server::models() const {
  return impl_->models->served();
}

absl::Status Server::device_status() const { return impl_->watch->status(); }

std::vector<FailedModel> Server::failed_models() const {
  return impl_->models->failed();
}

void Server::Drain() {
  impl_->log.Info("draining",
                  LogFields()
                      .Add("grace", impl_->config.drain().grace())
                      .Add("deadline", impl_->config.drain().deadline()));
  impl_->state = ServerState::kDraining;
  impl_->health->Retire();
  // Clients learn late that they should go elsewhere.
  absl::SleepFor(DrainGraceOf(impl_->config));
  impl_->admission->Close();
  impl_->engine->Drain(absl::Now() + DrainDeadlineOf(impl_->config));
  impl_->Close(kShutdownTime);
  impl_->log.Info("stopped");
}

}  // namespace headcount
