#include "cli/version.h"

#include <grpcpp/version_info.h>

#include "absl/status/status.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "google/protobuf/stubs/common.h"

namespace headcount {
namespace {

absl::Status Print(OutputFormat output, Console& console) {
  const std::string protobuf =
      google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION);
  if (output == OutputFormat::kJson) {
    PrintJson(console, {{"version", HEADCOUNT_VERSION},
                        {"compiler", __VERSION__},
                        {"grpc", GRPC_CPP_VERSION_STRING},
                        {"protobuf", protobuf}});
  } else {
    console.out << "headcount " HEADCOUNT_VERSION " (gRPC "
                << GRPC_CPP_VERSION_STRING << ", protobuf " << protobuf
                << ", compiler " << __VERSION__ << ")\n";
  }
  return absl::OkStatus();
}

}  // namespace

Command VersionCommand(CLI::App& root) {
  auto output = std::make_shared<OutputFormat>();
  CLI::App& app = AddCommand(root, "version", "what this binary is");
  AddOutput(app, output.get());
  app.footer(Examples({{"for a script", "headcount version --output json"}}));
  return {.app = &app, .run = [output](Console& console) {
            return Print(*output, console);
          }};
}

}  // namespace headcount
