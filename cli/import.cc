#include "cli/import.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/human.h"
#include "cli/flags.h"
#include "cli/heads_json.h"
#include "cli/number_flags.h"
#include "cli/output.h"
#include "cli/prune_flags.h"
#include "cli/table.h"
#include "cli/write_file.h"
#include "format/checkpoint.h"
#include "model/duo_attention.h"
#include "model/heads_file.h"
#include "model/model_config.h"

namespace headcount {
namespace {

// What the training left near 0 it called streaming, and near 1 not.
constexpr double kClearlyStreaming = 0.05;
constexpr double kRetrieval = 0.5;

struct ImportOptions {
  std::string pattern;
  std::string weights;
  std::string out = "heads.json";
  double share = 0.5;
  std::optional<int32_t> sink;
  std::optional<int32_t> recent;
};

Json MaskJson(const ModelConfig& config, const std::string& sha256,
              const KvHeadRules& streaming) {
  Json layers = Json::array();
  for (const auto& [layer, heads] : streaming) {
    Json stream = Json::array();
    for (const auto& [head, rule] : heads) {
      stream.push_back({{"kv", head},
                        {"sink", rule.retention->sink},
                        {"recent", rule.retention->window}});
    }
    layers.push_back({{"i", layer}, {"stream", stream}});
  }
  return MaskFileJson({.architecture = config.architecture,
                       .sha256 = sha256,
                       .layers = config.layers,
                       .query_heads = config.heads.front().query_heads,
                       .kv_heads = config.heads.front().kv_heads,
                       .head_dim = config.head_dim},
                      std::move(layers));
}

// The gates themselves, beside what was made of them: a share can be had of any
// pattern, also of one whose heads all need everything.
std::string Render(const DuoPattern& pattern, const KvHeadRules& streaming) {
  Table table({{"LAYER", Align::kRight},
               {"GATES OF KV HEADS"},
               {"STREAMING", Align::kRight}});
  int64_t heads = 0;
  int64_t clear = 0;
  int64_t doubtful = 0;
  int64_t stream = 0;
  for (size_t l = 0; l < pattern.gates.size(); ++l) {
    const auto found = streaming.find(static_cast<int>(l));
    std::string gates;
    int64_t of_layer = 0;
    for (size_t head = 0; head < pattern.gates[l].size(); ++head) {
      const double gate = pattern.gates[l][head];
      const bool streams = found != streaming.end() &&
                           found->second.contains(static_cast<int>(head));
      absl::StrAppendFormat(&gates, "%s%.2f%s", gates.empty() ? "" : " ", gate,
                            streams ? "*" : " ");
      ++heads;
      clear += gate < kClearlyStreaming ? 1 : 0;
      doubtful += streams && gate > kRetrieval ? 1 : 0;
      of_layer += streams ? 1 : 0;
    }
    stream += of_layer;
    table.AddRow({absl::StrCat(l), gates,
                  absl::StrCat(of_layer, "/", pattern.gates[l].size())});
  }
  std::string text =
      absl::StrCat(table.Render(), "\n", stream, " of ", heads,
                   " KV heads stream (*): ", "the first ",
                   FormatCount(pattern.streaming.sink), " and the last ",
                   FormatCount(pattern.streaming.window), " tokens. ", clear,
                   " have a gate below ", kClearlyStreaming, ".\n");
  if (doubtful > 0) {
    absl::StrAppend(&text, doubtful, " of those that stream have a gate over ",
                    kRetrieval,
                    ": the training did not find that they can. Lower "
                    "--streaming, or verify on long texts.\n");
  }
  return text;
}

absl::Status Import(const ImportOptions& options, Console& console) {
  absl::StatusOr<DuoPattern> pattern = ReadDuoPattern(options.pattern);
  if (!pattern.ok()) return pattern.status();
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(options.weights);
  if (!config.ok()) return config.status();
  const absl::Status fits = CheckDuoPattern(*pattern, config->heads);
  if (!fits.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.pattern, ": ", fits.message()));
  }
  if (options.sink) pattern->streaming.sink = *options.sink;
  if (options.recent) pattern->streaming.window = *options.recent;
  const absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(options.weights);
  if (!checkpoint.ok()) return checkpoint.status();
  const absl::StatusOr<std::string> sha256 = checkpoint->Sha256();
  if (!sha256.ok()) return sha256.status();
  const KvHeadRules streaming = StreamingHeads(*pattern, options.share);
  absl::Status written = WriteFile(
      options.out, MaskJson(*config, *sha256, streaming).dump(1) + "\n");
  if (!written.ok()) return written;
  // It has to be what the server takes.
  const absl::StatusOr<HeadsFile> read = ReadHeadsFile(options.out, *config);
  if (!read.ok()) return read.status();
  console.out << Render(*pattern, streaming);
  console.err << "Mask: " << options.out
              << " (serve it with --mask-file, or heads: {mask_file: ...})\n";
  return absl::OkStatus();
}

}  // namespace

Command ImportCommand(CLI::App& root) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App& app = AddCommand(
      root, "import", "make a mask file of streaming heads that were trained");
  app.add_option("PATTERN", options->pattern,
                 "of DuoAttention: a folder with full_attention_heads.tsv, or "
                 "that file")
      ->required();
  app.add_option("--weights", options->weights,
                 "the model's folder or .gguf, whose SHA-256 the mask names")
      ->type_name("PATH")
      ->required();
  AddShare(
      app, "--streaming", [options](double share) { options->share = share; },
      "this share of all KV heads streams, those with the least gates")
      ->default_str("50%");
  AddNumber(app, "--sink", &options->sink, {.least = 0},
            "first tokens that a streaming head keeps, a multiple of 16; the "
            "pattern's unless set")
      ->type_name("TOKENS");
  AddNumber(app, "--recent", &options->recent, {.least = 1},
            "last tokens that it keeps; the pattern's unless set")
      ->type_name("TOKENS");
  app.add_option("--out", options->out, "the mask file to write")
      ->type_name("FILE");
  app.footer(
      "A head that streams keeps the first and the last tokens of a sequence\n"
      "and gives the pages between back. The gates are shown with what is\n"
      "made of them: half of the heads can stream in any pattern, also in one\n"
      "whose training found none that may.\n\n"
      "`pruned_heads` and lists of heads by layer in a config.json, and "
      "arrays\n"
      "in a GGUF file, need no import: they are read with the model.\n\n" +
      Examples({
          {"half of the heads",
           "headcount import Llama-3-8B-Instruct-Gradient-1048k \\\n"
           "      --weights models/llama-3-8b --out streaming.json"},
          {"and serve it",
           "headcount serve models/llama-3-8b --mask-file streaming.json"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return Import(*options, console);
          }};
}

}  // namespace headcount
