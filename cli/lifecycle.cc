#include "cli/lifecycle.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/human.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/model_view.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

struct LifecycleOptions {
  // Weights are read and packed, or running requests awaited.
  ClientOptions client = {.timeout = absl::Minutes(10)};
  OutputFormat output = OutputFormat::kTable;
  std::string model;
  absl::Duration deadline = absl::InfiniteDuration();  // the server's
};

// Of help pages: who may call LoadModel, UnloadModel and Drain.
constexpr char kWhoMay[] =
    "From another machine it needs 'admin: any' in the server's file; with\n"
    "'admin: off' there, no client may.\n\n";

std::string StageText(v1::LoadModelResponse::Stage stage) {
  switch (stage) {
    case v1::LoadModelResponse::STAGE_WAITING:
      return "waiting for another model";
    case v1::LoadModelResponse::STAGE_READING:
      return "reading and packing weights";
    case v1::LoadModelResponse::STAGE_JOINING:
      return "joining the KV pool";
    case v1::LoadModelResponse::STAGE_READY:
      return "ready";
    default:
      return "at a stage that this client does not know";
  }
}

// The stages of a load as they come: a line each, and a bar of the bytes that
// are read, on a terminal.
class StageLines {
 public:
  explicit StageLines(Console& console) : console_(console) {}

  void Show(const v1::LoadModelResponse& response) {
    if (response.total_bytes() > 0) {
      const int64_t total = response.total_bytes() / kMebibyte;
      if (!bar_.has_value()) bar_.emplace(console_, "MiB of weights", total);
      bar_->Show(response.read_bytes() / kMebibyte);
      return;
    }
    bar_.reset();
    if (response.stage() == v1::LoadModelResponse::STAGE_WAITING) return;
    console_.err << absl::StrFormat("%7.2f s  %s\n",
                                    response.elapsed_ms() / 1000,
                                    StageText(response.stage()))
                 << std::flush;
  }

 private:
  static constexpr int64_t kMebibyte = int64_t{1} << 20;

  Console& console_;
  std::optional<Progress> bar_;
};

absl::Status Load(const LifecycleOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::LoadModelRequest request;
  request.set_name(options.model);
  const auto stub = v1::ModelService::NewStub(client.channel());
  const auto stages = stub->LoadModel(&context, request);
  v1::LoadModelResponse response;
  v1::Model model;
  double elapsed_ms = 0;
  StageLines lines(console);
  while (stages->Read(&response)) {
    lines.Show(response);
    if (response.has_model()) model = response.model();
    elapsed_ms = response.elapsed_ms();
  }
  const absl::Status status = client.Check(stages->Finish());
  if (!status.ok()) return status;
  if (options.output == OutputFormat::kJson) {
    PrintJson(console,
              {{"model", ModelJson(model)}, {"seconds", elapsed_ms / 1000}});
  } else {
    console.out << model.name() << " answers, with "
                << FormatByteSize(model.weight_bytes()) << " of weights\n";
  }
  return absl::OkStatus();
}

absl::Status Unload(const LifecycleOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::UnloadModelRequest request;
  request.set_name(options.model);
  if (options.deadline != absl::InfiniteDuration()) {
    request.set_deadline_seconds(absl::ToDoubleSeconds(options.deadline));
  }
  v1::UnloadModelResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  const absl::Status status =
      client.Check(stub->UnloadModel(&context, request, &response));
  if (!status.ok()) return status;
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, {{"model", options.model},
                        {"requests_ended", response.requests_ended()},
                        {"weight_bytes", response.weight_bytes()}});
    return absl::OkStatus();
  }
  console.out << options.model
              << " is unloaded: " << FormatByteSize(response.weight_bytes())
              << " of weights given back";
  if (response.requests_ended() > 0) {
    console.out << ", " << response.requests_ended()
                << " requests ended before their time";
  }
  console.out << "\n";
  return absl::OkStatus();
}

absl::Status Drain(const LifecycleOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::DrainResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  const absl::Status status =
      client.Check(stub->Drain(&context, {}, &response));
  if (!status.ok()) return status;
  console.err << options.client.address
              << " drains: it lets running requests end, then exits\n";
  return absl::OkStatus();
}

void AddModel(CLI::App& app, LifecycleOptions* options) {
  app.add_option("MODEL", options->model, "its name in the configuration")
      ->required();
}

}  // namespace

Command LoadCommand(CLI::App& root) {
  auto options = std::make_shared<LifecycleOptions>();
  CLI::App& app = AddCommand(root, "load",
                             "load a configured model while others are served");
  AddModel(app, options.get());
  AddClientFlags(app, &options->client);
  AddOutput(app, &options->output);
  app.footer(
      "A model is configured by the server's file, its arguments or its\n"
      "--models-dir, never by a client. With 'preload: off' it waits for this\n"
      "command. A load that does not fit, or fails, changes nothing else. A\n"
      "variant is loaded when its base is.\n\n" +
      std::string(kWhoMay) +
      Examples({
          {"what there is to load", "headcount list"},
          {"make it answer", "headcount load smollm2-135m"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return Load(*options, console);
          }};
}

Command UnloadCommand(CLI::App& root) {
  auto options = std::make_shared<LifecycleOptions>();
  CLI::App& app =
      AddCommand(root, "unload", "take a model out and give its memory back");
  AddModel(app, options.get());
  AddDuration(
      app, "--deadline",
      [options](absl::Duration time) { options->deadline = time; },
      "how long its requests may take to end; the server's drain deadline "
      "unless set");
  AddClientFlags(app, &options->client);
  AddOutput(app, &options->output);
  app.footer(
      "New requests are refused at once (FAILED_PRECONDITION), running and\n"
      "waiting ones may end until the deadline; the rest is UNAVAILABLE. A\n"
      "model stays while variants of it are loaded.\n\n" +
      std::string(kWhoMay) +
      Examples({
          {"when its requests have ended", "headcount unload smollm2-135m"},
          {"now", "headcount unload smollm2-135m --deadline 0s"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return Unload(*options, console);
          }};
}

Command DrainCommand(CLI::App& root) {
  auto options = std::make_shared<LifecycleOptions>();
  options->client.timeout = absl::Seconds(5);
  CLI::App& app = AddCommand(root, "drain", "end a server as SIGTERM does");
  AddClientFlags(app, &options->client);
  app.footer(kWhoMay +
             Examples({
                 {"let running requests end, then exit", "headcount drain"},
                 {"until it has", "while headcount health; do sleep 1; done"},
             }));
  return {.app = &app, .run = [options](Console& console) {
            return Drain(*options, console);
          }};
}

}  // namespace headcount
