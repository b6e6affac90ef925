#include "cli/list.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/human.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/model_view.h"
#include "cli/output.h"
#include "cli/table.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

struct ListOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
};

std::string Fraction(int64_t kept, int64_t all) {
  return absl::StrCat(kept, "/", all);
}

absl::Status List(const ListOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::ListModelsResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  if (absl::Status status =
          client.Check(stub->ListModels(&context, {}, &response));
      !status.ok()) {
    return status;
  }
  if (options.output == OutputFormat::kJson) {
    Json models = Json::array();
    for (const v1::Model& model : response.models()) {
      models.push_back(ModelJson(model));
    }
    PrintJson(console, {{"models", models}});
    return absl::OkStatus();
  }
  Table table({{"MODEL"},
               {"STATE"},
               {"HEADS", Align::kRight},
               {"KV HEADS", Align::kRight},
               {"CONTEXT", Align::kRight},
               {"KV/TOKEN", Align::kRight},
               {"KV IN USE", Align::kRight},
               {"WEIGHTS", Align::kRight},
               {"RUNNING", Align::kRight},
               {"WAITING", Align::kRight},
               {""}});
  for (const v1::Model& model : response.models()) {
    if (model.num_layers() == 0) {  // not loaded: nothing is known of it
      table.AddRow({model.name(), StateName(model.state()), "-", "-", "-", "-",
                    "-", "-", "-", "-", VariantNote(model.variant_of())});
      continue;
    }
    table.AddRow({model.name(), StateName(model.state()),
                  Fraction(model.query_heads(), model.query_heads_unpruned()),
                  Fraction(model.kv_heads(), model.kv_heads_unpruned()),
                  FormatCount(model.max_context()),
                  FormatByteSize(model.kv_bytes_per_token()),
                  FormatByteSize(model.kv_bytes_used()),
                  FormatByteSize(model.weight_bytes()),
                  FormatCount(model.requests_running()),
                  FormatCount(model.requests_waiting()),
                  VariantNote(model.variant_of())});
  }
  console.out << table.Render();
  return absl::OkStatus();
}

}  // namespace

Command ListCommand(CLI::App& root) {
  auto options = std::make_shared<ListOptions>();
  CLI::App& app = AddCommand(root, "list",
                             "the models of a server: heads, memory, requests");
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
  app.footer(Examples({
      {"heads and KV heads that run, of those that the model has",
       "headcount list"},
      {"why is a model 'failed'?", "headcount show mailroom"},
      {"another server, for a script",
       "headcount list --address mail-0:50051 --output json"},
  }));
  return {.app = &app, .run = [options](Console& console) {
            return List(*options, console);
          }};
}

}  // namespace headcount
