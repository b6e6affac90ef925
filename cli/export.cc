#include "cli/export.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/human.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/sliced_yaml.h"
#include "cli/table.h"
#include "export/export.h"
#include "server/config.h"

namespace headcount {
namespace {

using config::v1::ModelSpec;

struct ExportFlags {
  std::string model;
  std::string out;
  std::string mask_file;
  std::optional<ExportFormat> format;  // by the name of `out` unless set
  bool force = false;
  OutputFormat output = OutputFormat::kTable;
};

const char* NameOf(ExportFormat format) {
  return format == ExportFormat::kGguf ? "gguf" : "safetensors";
}

void PrintReport(const ExportReport& report, const ExportFlags& flags,
                 ExportFormat format, Console& console) {
  struct Row {
    const char* key;
    const char* title;
    const int64_t* values;
    bool bytes;
  };
  const Row rows[] = {{"query_heads", "query heads", report.query_heads, false},
                      {"kv_heads", "KV heads", report.kv_heads, false},
                      {"kv_bytes_per_token", "KV cache of a token",
                       report.kv_bytes_per_token, true},
                      {"weight_bytes", "weights", report.weight_bytes, true}};
  if (flags.output == OutputFormat::kJson) {
    Json json = {{"path", flags.out},
                 {"format", NameOf(format)},
                 {"architecture", report.architecture}};
    for (const Row& row : rows) {
      json[row.key] = {{"before", row.values[0]}, {"after", row.values[1]}};
    }
    json["notes"] = report.notes;
    PrintJson(console, json);
    return;
  }
  console.out << flags.out << ": " << NameOf(format) << ", architecture "
              << report.architecture << "\n\n";
  Table table({{""}, {"BEFORE", Align::kRight}, {"AFTER", Align::kRight}});
  for (const Row& row : rows) {
    const auto format_value = [&](int64_t value) {
      return row.bytes ? FormatByteSize(value) : FormatCount(value);
    };
    table.AddRow(
        {row.title, format_value(row.values[0]), format_value(row.values[1])});
  }
  console.out << table.Render();
}

absl::StatusOr<ModelSpec> ReadSpec(const ExportFlags& flags) {
  absl::StatusOr<ModelSpec> spec = ReadModelSpec(flags.model);
  if (!spec.ok()) return spec.status();
  if (IsVariant(*spec)) {
    return absl::InvalidArgumentError(absl::StrCat(
        flags.model, ": source.variant_of: a variant has no weights; export ",
        "the model that it names, with the variant's mask as --mask-file"));
  }
  if (!flags.mask_file.empty()) {
    spec->mutable_heads()->set_mask_file(flags.mask_file);
  }
  return spec;
}

absl::Status RunExport(const ExportFlags& flags, Console& console) {
  const absl::StatusOr<ModelSpec> spec = ReadSpec(flags);
  if (!spec.ok()) return spec.status();
  const ExportFormat format = flags.format.value_or(
      absl::EndsWith(flags.out, ".gguf") ? ExportFormat::kGguf
                                         : ExportFormat::kSafetensors);
  ExportOptions options;
  options.source.path = spec->source().path();
  options.source.mask = HeadMaskOf(*spec);
  options.source.mask_file = spec->heads().mask_file();
  options.out = flags.out;
  options.format = format;
  options.force = flags.force;
  const std::optional<std::string> yaml = YamlOf(flags.model);
  if (yaml) {
    options.more_files = [&](const HeadLayout& layout)
        -> absl::StatusOr<std::vector<std::pair<std::string, std::string>>> {
      absl::StatusOr<std::string> text = SlicedYaml(*yaml, layout);
      if (!text.ok()) return text.status();
      return std::vector<std::pair<std::string, std::string>>{
          {"headcount.yaml", *std::move(text)}};
    };
  }
  std::optional<Progress> bar;
  options.progress = [&](int64_t done, int64_t total) {
    if (!bar) bar.emplace(console, "bytes", total);
    bar->Show(done);
  };
  absl::StatusOr<ExportReport> report = Export(options);
  bar.reset();
  if (!report.ok()) return report.status();
  if (yaml && format == ExportFormat::kGguf) {
    report->notes.push_back(
        absl::StrCat(*yaml,
                     " is not part of a GGUF file: copy what it says "
                     "of classification, KV cache and limits"));
  }
  for (const std::string& note : report->notes) {
    console.err << "note: " << note << "\n";
  }
  PrintReport(*report, flags, format, console);
  return absl::OkStatus();
}

}  // namespace

Command ExportCommand(CLI::App& root) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App& app = AddCommand(
      root, "export", "write a pruned model as files that hold no pruned head");
  app.add_option("MODEL", flags->model,
                 "folder of a model in the Hugging Face layout, GGUF file (or "
                 "folder with one), or YAML file of one model; the mask of a "
                 "headcount.yaml or config.json in the folder counts")
      ->required();
  app.add_option("--out", flags->out,
                 "the folder to write, or a file named *.gguf")
      ->required()
      ->type_name("PATH");
  app.add_option("--mask-file,--mask", flags->mask_file,
                 "heads to leave out, format heads/1")
      ->type_name("FILE");
  AddChoice(
      app, "--format", {"safetensors", "gguf"},
      [flags](const std::string& name) {
        flags->format =
            name == "gguf" ? ExportFormat::kGguf : ExportFormat::kSafetensors;
      },
      "gguf if --out is named *.gguf, else safetensors");
  app.add_flag("--force", flags->force, "write over what is there");
  AddOutput(app, &flags->output);
  app.footer(
      "Needs no server. The result has the mask, and the repair that a mask "
      "file\n"
      "may have, in its weights. Any mask can be written as safetensors; GGUF "
      "for\n"
      "llama.cpp says fewer, and what it cannot say is refused with the "
      "layer.\n\n" +
      Examples({
          {"a folder that `headcount serve` takes",
           "headcount export models/mailroom --mask heads.json --out "
           "mail-half"},
          {"a file for llama.cpp",
           "headcount export smollm2.gguf --mask heads.json --out pruned.gguf"},
      }));
  return {.app = &app, .run = [flags](Console& console) {
            return RunExport(*flags, console);
          }};
}

}  // namespace headcount
