#include "cli/prune_options.h"

#include "cli/number_flags.h"
#include "cli/prune_flags.h"

namespace headcount {
namespace {

void AddModelFlags(CLI::App& app, PruneOptions* options) {
  app.add_option("-m,--model", options->model,
                 "which model to ask; not needed if the server has just one. A "
                 "path, which has a '/' in it, is that of a folder, .gguf or "
                 "YAML file as for `serve`: then a server is started inside, "
                 "and --address is not asked")
      ->type_name("NAME|PATH");
  app.add_option("--weights", options->weights,
                 "the model's folder or .gguf, if it is on this machine: puts "
                 "the weights' SHA-256 into the mask, and the most that speed "
                 "can gain into the report; that of --model if this is a path")
      ->type_name("PATH");
}

void AddRepairFlags(CLI::App& app, PruneOptions* options) {
  app.add_flag("--repair", options->repair,
               "refit the output projections for the heads that stay, layer by "
               "layer, and keep what brings the answers nearer to the dense "
               "ones on split select: a file beside the mask. Needs the "
               "weights, and starts a server inside")
      ->group("Repair");
  AddNumber(app, "--latency-texts", &options->latency_texts, {0, 4096},
            "with a server inside: texts of split select that latency is "
            "measured on, for each mask of the path; 0: it is not");
  AddNumber(app, "--repair-texts", &options->repairs.texts, {8, 65536},
            "at most so many of split rank to refit from; after those of "
            "--rank-examples, others of the split")
      ->group("Repair");
  AddNumber(app, "--repair-examples", &options->repairs.examples, {8, 65536},
            "at most so many of split select to try layers on, drawn by --seed")
      ->group("Repair");
}

void AddDataFlags(CLI::App& app, PruneOptions* options) {
  const auto file = [&app](const std::string& name, std::string& value,
                           const std::string& description) {
    return app.add_option(name, value, description)
        ->type_name("FILE")
        ->group("Data");
  };
  CLI::Option* data = file(
      "--data", options->files.data,
      "examples: JSON lines, .jsonl or .jsonl.gz, with \"text\" and \"label\" "
      "or \"target\"; \"split\" says rank, select or test, else its hash does");
  CLI::Option* rank = file("--rank", options->files.splits[0],
                           "examples to rank heads on; need no label");
  CLI::Option* select = file("--select", options->files.splits[1],
                             "examples to choose the mask on");
  CLI::Option* test = file("--test", options->files.splits[2],
                           "examples that are read once, for what is reported");
  rank->excludes(data)->needs(select)->needs(test);
  select->excludes(data)->needs(rank);
  test->excludes(data)->needs(rank);
  app.add_option("--field", options->files.field,
                 "field of a line that holds the text; \"text\" or \"body\" "
                 "unless set")
      ->type_name("NAME")
      ->group("Data");
  app.add_option("--template", options->files.frame.text,
                 "what stands around a text that has a \"target\", such as "
                 "'<|bos|>{input}<|subject|>'; needs --weights")
      ->type_name("TEXT")
      ->group("Data");
  AddNumber(app, "--rank-examples", &options->rank_examples, {8, 4096},
            "at most so many of split rank, drawn by --seed")
      ->group("Data");
}

void AddTargetFlags(CLI::App& app, PruneOptions* options) {
  CLI::Option* keep = AddShare(
      app, "--keep", [options](double share) { options->keep = share; },
      "this share of the units stays, at most");
  CLI::Option* bytes = AddShare(
      app, "--kv-bytes", [options](double share) { options->kv_bytes = share; },
      "this share of the KV cache's bytes stays, at most");
  bytes->excludes(keep);
  app.add_option("--max-loss", options->max_loss,
                 "without --keep and --kv-bytes: save all that a loss of no "
                 "more than this allows, with 95 % confidence; with them: the "
                 "claim to check. Accuracy in points (1pt, the default), else "
                 "nats a token (0.05nats, the default)")
      ->type_name("LOSS");
  AddChoice(
      app, "--unit", {"group", "head"},
      [options](const std::string& unit) { options->unit = unit; },
      "what goes at once: a KV head with its query heads, which frees "
      "memory, "
      "or a single query head, which frees arithmetic only")
      ->default_str(options->unit);
  AddShare(
      app, "--step", [options](double share) { options->step = share; },
      "how much more each mask of the path takes out")
      ->default_str("10%");
  AddNumber(app, "--seed", &options->seed, {}, "same seed, same mask");
}

}  // namespace

bool IsModelPath(const std::string& model) {
  return model.find('/') != std::string::npos;
}

void AddPruneFlags(CLI::App& app, PruneOptions* options) {
  AddModelFlags(app, options);
  AddTargetFlags(app, options);
  app.add_option("--out", options->out, "the mask file to write")
      ->type_name("FILE");
  app.add_option("--report", options->report,
                 "the report to write; the mask's name with .html unless set")
      ->type_name("FILE");
  app.add_option("--journal", options->journal,
                 "where scores are kept, so that a run that was stopped goes "
                 "on; the mask's name with .journal unless set, and then "
                 "deleted at the end")
      ->type_name("FILE");
  AddDataFlags(app, options);
  AddRepairFlags(app, options);
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
  app.parse_complete_callback([options] {
    if (options->files.data.empty() && options->files.splits[0].empty()) {
      throw CLI::ValidationError("--data",
                                 "give --data, or --rank, --select and --test");
    }
    if (options->repair && options->weights.empty() &&
        !IsModelPath(options->model)) {
      throw CLI::ValidationError(
          "--repair",
          "needs the weights: give --weights PATH, or --model PATH to start a "
          "server inside");
    }
  });
}

}  // namespace headcount
