#include "cli/classify.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/client.h"
#include "cli/confusion.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/labelled_texts.h"
#include "cli/number_flags.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "server/limits.h"

namespace headcount {
namespace {

// A request stays well below the 4 MiB that servers take.
constexpr size_t kMaxBatchBytes = size_t{2} << 20;

struct ClassifyOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  std::string model;
  std::vector<std::string> texts;
  std::string input;
  std::string field;
  int32_t batch = 32;
  bool summary = false;
  int32_t priority = 0;
};

void AddFlags(CLI::App& app, ClassifyOptions* options) {
  CLI::Option* texts = app.add_option("TEXT", options->texts,
                                      "texts to classify, each on its own");
  CLI::Option* input =
      app.add_option("--input", options->input,
                     "texts from a file of JSON lines, .jsonl or .jsonl.gz; a "
                     "\"label\" in a line is taken as the truth")
          ->type_name("FILE")
          ->excludes(texts);
  app.add_option("--field", options->field,
                 "field of a line that holds the text; \"text\" or \"body\" "
                 "unless set")
      ->type_name("NAME");
  AddNumber(app, "--batch", &options->batch, {1, kMaxClassifyInputs},
            "texts in one call");
  app.add_flag("--summary", options->summary,
               "only how many texts got which label, and the accuracy");
  AddModel(app, &options->model);
  AddPriority(app, &options->priority);
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
  app.parse_complete_callback([texts, input] {
    if (texts->count() + input->count() == 0) {
      throw CLI::ValidationError("TEXT", "give texts to classify, or --input");
    }
  });
}

absl::StatusOr<std::vector<LabelledText>> ReadTexts(
    const ClassifyOptions& options) {
  if (!options.input.empty()) {
    return ReadLabelledTexts(options.input, options.field);
  }
  std::vector<LabelledText> texts;
  for (const std::string& text : options.texts) {
    texts.push_back({.text = text, .label = ""});
  }
  return texts;
}

// Where the batch that starts at `begin` ends.
size_t BatchEnd(const std::vector<LabelledText>& texts, size_t begin,
                int32_t batch) {
  size_t bytes = texts[begin].text.size();
  size_t end = begin + 1;
  while (end < texts.size() && end - begin < static_cast<size_t>(batch)) {
    bytes += texts[end].text.size();
    if (bytes > kMaxBatchBytes) break;
    ++end;
  }
  return end;
}

// All texts, batch by batch, in order. On Ctrl-C the call in flight is
// cancelled.
absl::StatusOr<std::vector<v1::Classification>> ClassifyAll(
    const ClassifyOptions& options, const std::vector<LabelledText>& texts,
    Console& console) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  const Client client(options.client);
  const auto stub = v1::InferenceService::NewStub(client.channel());
  Progress progress(console, "texts", static_cast<int64_t>(texts.size()));
  std::vector<v1::Classification> results;
  while (results.size() < texts.size()) {
    const size_t begin = results.size();
    const size_t end = BatchEnd(texts, begin, options.batch);
    v1::ClassifyRequest request;
    request.set_model(options.model);
    request.set_priority(options.priority);
    for (size_t i = begin; i < end; ++i) request.add_inputs(texts[i].text);
    OpenCalls::Call call(&calls, client);
    v1::ClassifyResponse response;
    if (absl::Status status =
            client.Check(stub->Classify(call.context(), request, &response));
        !status.ok()) {
      return status;
    }
    if (static_cast<size_t>(response.results_size()) != end - begin) {
      return absl::InternalError(absl::StrCat("the server answered ",
                                              response.results_size(), " of ",
                                              end - begin, " texts"));
    }
    results.insert(results.end(), response.results().begin(),
                   response.results().end());
    progress.Show(static_cast<int64_t>(results.size()));
  }
  return results;
}

Confusion Compare(const std::vector<LabelledText>& texts,
                  const std::vector<v1::Classification>& results) {
  Confusion confusion;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].label.empty()) continue;
    confusion.Add(texts[i].label, results[i].label());
  }
  return confusion;
}

void PrintRows(const std::vector<LabelledText>& texts,
               const std::vector<v1::Classification>& results, bool with_truth,
               Console& console) {
  std::vector<Table::Column> columns = {{"LABEL"},
                                        {"PROBABILITY", Align::kRight}};
  if (with_truth) columns.push_back({"TRUTH"});
  columns.push_back({"TEXT"});
  Table table(columns);
  for (size_t i = 0; i < texts.size(); ++i) {
    const float probability =
        results[i].labels().empty() ? 0 : results[i].labels(0).probability();
    std::vector<std::string> cells = {Crop(results[i].label(), 20),
                                      absl::StrFormat("%.4f", probability)};
    if (with_truth) cells.push_back(Crop(texts[i].label, 20));
    cells.push_back(Crop(texts[i].text, 50));
    table.AddRow(std::move(cells));
  }
  console.out << table.Render();
}

std::map<std::string, int> CountLabels(
    const std::vector<v1::Classification>& results) {
  std::map<std::string, int> counts;
  for (const v1::Classification& result : results) ++counts[result.label()];
  return counts;
}

void PrintCounts(const std::map<std::string, int>& counts, Console& console) {
  Table table({{"LABEL"}, {"TEXTS", Align::kRight}});
  for (const auto& [label, count] : counts) {
    table.AddRow({Crop(label, 20), absl::StrCat(count)});
  }
  console.out << table.Render();
}

Json ResultJson(const LabelledText& text, const v1::Classification& result) {
  Json probabilities = Json::object();
  Json logprobs = Json::object();
  for (const v1::LabelProbability& label : result.labels()) {
    probabilities[label.label()] = label.probability();
    logprobs[label.label()] = label.logprob();
  }
  Json json = {{"label", result.label()},
               {"probabilities", probabilities},
               {"logprobs", logprobs},
               {"prompt_tokens", result.prompt_tokens()}};
  if (!text.label.empty()) json["truth"] = text.label;
  return json;
}

absl::Status Classify(const ClassifyOptions& options, Console& console) {
  const absl::StatusOr<std::vector<LabelledText>> texts = ReadTexts(options);
  if (!texts.ok()) return texts.status();
  const absl::StatusOr<std::vector<v1::Classification>> results =
      ClassifyAll(options, *texts, console);
  if (!results.ok()) return results.status();
  const Confusion confusion = Compare(*texts, *results);
  const bool labelled = confusion.total() > 0;

  if (options.output == OutputFormat::kJson) {
    Json json = {{"counts", CountLabels(*results)}};
    for (size_t i = 0; i < texts->size() && !options.summary; ++i) {
      json["results"].push_back(ResultJson((*texts)[i], (*results)[i]));
    }
    if (labelled) json["summary"] = confusion.ToJson();
    PrintJson(console, json);
    return absl::OkStatus();
  }
  if (!options.summary) {
    PrintRows(*texts, *results, labelled, console);
    if (labelled) console.out << "\n";
  }
  if (labelled) {
    console.out << confusion.Render();
  } else if (options.summary) {
    PrintCounts(CountLabels(*results), console);
  }
  return absl::OkStatus();
}

}  // namespace

Command ClassifyCommand(CLI::App& root) {
  auto options = std::make_shared<ClassifyOptions>();
  CLI::App& app = AddCommand(root, "classify",
                             "which of the model's labels fits each text");
  AddFlags(app, options.get());
  app.footer(Examples({
      {"two texts, each on its own",
       "headcount classify 'You have won' 'The patch is in CVS'"},
      {"a labelled file: accuracy with its 95 % interval (Wilson)",
       "headcount classify --input test.jsonl.gz --field body --summary"},
      {"all labels with their probabilities, for a script",
       "headcount classify 'You have won' --output json"},
  }));
  return {.app = &app, .run = [options](Console& console) {
            return Classify(*options, console);
          }};
}

}  // namespace headcount
