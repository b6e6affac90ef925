#include "cli/ps.h"

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/human.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/model_view.h"
#include "cli/output.h"
#include "cli/table.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

constexpr int kBarWidth = 50;

struct PsOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
};

Json PoolJson(const v1::Pool& pool) {
  Json models = Json::array();
  for (const v1::PoolModel& model : pool.models()) {
    models.push_back({{"name", model.name()},
                      {"variant_of", model.variant_of()},
                      {"used_bytes", model.used_bytes()},
                      {"cached_bytes", model.cached_bytes()},
                      {"lent_bytes", model.lent_bytes()},
                      {"floor_bytes", model.floor_bytes()},
                      {"ceiling_bytes", model.ceiling_bytes()},
                      {"requests_running", model.requests_running()},
                      {"requests_waiting", model.requests_waiting()},
                      {"prefix_tokens", model.prefix_tokens()},
                      {"prefix_hit_tokens", model.prefix_hit_tokens()},
                      {"preemptions", model.preemptions()}});
  }
  return {{"capacity_bytes", pool.capacity_bytes()},
          {"used_bytes", pool.used_bytes()},
          {"cached_bytes", pool.cached_bytes()},
          {"free_bytes", pool.free_bytes()},
          {"reserved_bytes", pool.reserved_bytes()},
          {"fragmented_bytes", pool.fragmented_bytes()},
          {"slab_bytes", pool.slab_bytes()},
          {"queued_tokens", pool.queued_tokens()},
          {"queued_bytes", pool.queued_bytes()},
          {"tokens_per_second", pool.tokens_per_second()},
          {"models", models}};
}

// "####++++........": used, cached, free and reserved.
std::string Bar(const v1::Pool& pool) {
  const auto cells = [&](int64_t bytes) {
    return static_cast<size_t>(
        kBarWidth * static_cast<double>(bytes) /
            static_cast<double>(std::max<int64_t>(pool.capacity_bytes(), 1)) +
        0.5);
  };
  std::string bar(cells(pool.used_bytes()), '#');
  bar.append(cells(pool.cached_bytes()), '+');
  bar.resize(kBarWidth, '.');
  return bar;
}

std::string Part(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  return absl::StrFormat(
      "%.0f%%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

void PrintPool(const v1::Pool& pool, Console& console) {
  console.out << "KV pool  [" << Bar(pool) << "]  "
              << FormatByteSize(pool.capacity_bytes()) << "\n         # used "
              << FormatByteSize(pool.used_bytes()) << "   + cached "
              << FormatByteSize(pool.cached_bytes()) << "   . free "
              << FormatByteSize(pool.free_bytes()) << " ("
              << FormatByteSize(pool.fragmented_bytes())
              << " in lent slabs)   reserved "
              << FormatByteSize(pool.reserved_bytes()) << "\n\n";
  Table table({{"MODEL"},
               {"RUNNING", Align::kRight},
               {"WAITING", Align::kRight},
               {"USED", Align::kRight},
               {"CACHED", Align::kRight},
               {"LENT", Align::kRight},
               {"FLOOR", Align::kRight},
               {"CEILING", Align::kRight},
               {"PREFIX HITS", Align::kRight},
               {"PREEMPTED", Align::kRight},
               {""}});
  for (const v1::PoolModel& model : pool.models()) {
    table.AddRow({model.name(), FormatCount(model.requests_running()),
                  FormatCount(model.requests_waiting()),
                  FormatByteSize(model.used_bytes()),
                  FormatByteSize(model.cached_bytes()),
                  FormatByteSize(model.lent_bytes()),
                  FormatByteSize(model.floor_bytes()),
                  FormatByteSize(model.ceiling_bytes()),
                  Part(model.prefix_hit_tokens(), model.prefix_tokens()),
                  FormatCount(model.preemptions()),
                  VariantNote(model.variant_of())});
  }
  console.out << table.Render();
}

absl::Status Ps(const PsOptions& options, Console& console) {
  const Client client(options.client);
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::GetPoolResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  const absl::Status status =
      client.Check(stub->GetPool(&context, {}, &response));
  if (!status.ok()) return status;
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, PoolJson(response.pool()));
  } else {
    PrintPool(response.pool(), console);
  }
  return absl::OkStatus();
}

}  // namespace

Command PsCommand(CLI::App& root) {
  auto options = std::make_shared<PsOptions>();
  CLI::App& app = AddCommand(
      root, "ps", "what runs now, and who holds how much of the KV pool");
  AddClientFlags(app, &options->client);
  AddOutput(app, &options->output);
  app.footer(
      "USED is in blocks that sequences hold, CACHED in blocks that only the\n"
      "prefix cache does, LENT in whole slabs that no other model can have\n"
      "now. FLOOR is what a model can count on, CEILING the most that it may\n"
      "be lent. PREFIX HITS is the part of prompt tokens not computed "
      "again.\n\n" +
      Examples({
          {"once", "headcount ps"},
          {"every second", "watch -n 1 headcount ps"},
          {"one number for a script",
           "headcount ps --output json | jq .used_bytes"},
      }));
  return {.app = &app,
          .run = [options](Console& console) { return Ps(*options, console); }};
}

}  // namespace headcount
