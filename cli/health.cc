#include "cli/health.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace headcount {
namespace {

namespace health_v1 = grpc::health::v1;

struct HealthOptions {
  ClientOptions client = {.timeout = absl::Seconds(5)};
  OutputFormat output = OutputFormat::kTable;
  std::string service;
};

absl::Status Health(const HealthOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  health_v1::HealthCheckRequest request;
  request.set_service(options.service);
  health_v1::HealthCheckResponse response;
  const auto stub = health_v1::Health::NewStub(client.channel());
  const absl::Status status =
      client.Check(stub->Check(&context, request, &response));
  // A probe asks one thing; a server that does not answer does not serve.
  if (absl::IsDeadlineExceeded(status)) {
    return absl::UnavailableError(status.message());
  }
  if (!status.ok()) return status;
  const std::string name =
      health_v1::HealthCheckResponse::ServingStatus_Name(response.status());
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, {{"service", options.service}, {"status", name}});
  } else {
    console.out << name << "\n";
  }
  if (response.status() == health_v1::HealthCheckResponse::SERVING) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      absl::StrCat(options.client.address, " does not serve"));
}

}  // namespace

Command HealthCommand(CLI::App& root) {
  auto options = std::make_shared<HealthOptions>();
  CLI::App& app =
      AddCommand(root, "health", "whether a server serves: exit code 0 or 3");
  app.add_option("--service", options->service,
                 "ask about one service, such as readiness or liveness")
      ->type_name("NAME");
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
  app.footer(Examples({
      {"in a script", "until headcount health; do sleep 1; done"},
      {"as the probe of a container",
       "headcount health --service readiness --timeout 2s"},
  }));
  return {.app = &app, .run = [options](Console& console) {
            return Health(*options, console);
          }};
}

}  // namespace headcount
