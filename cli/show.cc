#include "cli/show.h"

#include <memory>
#include <string>

#include "cli/client.h"
#include "cli/flags.h"
#include "cli/model_view.h"
#include "cli/output.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

struct ShowOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  std::string model;
};

absl::Status Show(const ShowOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::GetModelRequest request;
  request.set_name(options.model);
  v1::GetModelResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  if (absl::Status status =
          client.Check(stub->GetModel(&context, request, &response));
      !status.ok()) {
    return status;
  }
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, ModelJson(response.model()));
  } else {
    console.out << RenderModel(response.model());
  }
  return absl::OkStatus();
}

}  // namespace

Command ShowCommand(CLI::App& root) {
  auto options = std::make_shared<ShowOptions>();
  CLI::App& app = AddCommand(root, "show",
                             "one model: heads layer by layer, what they cost");
  app.add_option("-m,--model,MODEL", options->model,
                 "which model; not needed if the server has just one")
      ->type_name("NAME");
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
  app.footer(Examples({
      {"each # is a query head that runs, each . a pruned one, and each\n"
       "  # group shares a KV head",
       "headcount show mailroom"},
      {"kept heads by index, for a script",
       "headcount show mailroom --output json"},
  }));
  return {.app = &app, .run = [options](Console& console) {
            return Show(*options, console);
          }};
}

}  // namespace headcount
