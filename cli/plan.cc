#include "cli/plan.h"

#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/human.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/gpus.h"
#include "cli/number_flags.h"
#include "cli/output.h"
#include "cli/plan_chart.h"
#include "cli/plan_local.h"
#include "cli/plan_view.h"
#include "headcount/v1/model.grpc.pb.h"
#include "heads/even_mask.h"
#include "server/limits.h"

namespace headcount {
namespace {

struct PlanOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  std::string model;
  PlanSettings settings;
  std::string mask_file;
  std::optional<double> kept;  // part of the KV groups
  std::optional<KvDtype> kv_dtype;
  std::optional<double> bandwidth;  // bytes a second, over the GPU's
  std::optional<double> tflops;     // likewise
  bool running = false;
  bool sweep = false;
  std::string html;
};

// "32k" (32,768) or "4096".
std::optional<int64_t> ParseTokens(const std::string& text) {
  absl::string_view number = text;
  int64_t factor = 1;
  if (!number.empty() && (number.back() == 'k' || number.back() == 'K')) {
    factor = 1024;
    number.remove_suffix(1);
  }
  int64_t tokens = 0;
  if (!absl::SimpleAtoi(number, &tokens) || tokens < 1 || tokens > 1 << 24) {
    return std::nullopt;
  }
  return tokens * factor;
}

Device DeviceOf(const PlanOptions& options) {
  Device device = options.settings.gpu.value_or(ThisCpu());
  if (options.running && !options.settings.gpu) {
    device = {.name = "the server's device"};
  }
  if (options.bandwidth) device.bytes_per_second = *options.bandwidth;
  if (options.tflops) device.flops = *options.tflops * 1e12;
  return device;
}

// The mask file's, or as many groups as are to be kept.
absl::StatusOr<HeadsFile> MaskFor(const PlanOptions& options,
                                  const ModelShape& shape) {
  if (!options.mask_file.empty()) return ReadMask(options.mask_file, shape);
  HeadsFile file;
  file.mask = EvenMask(shape.heads, options.kept.value_or(1));
  return file;
}

void PrintPlans(const v1::CapacityPlan& all_heads, const v1::CapacityPlan& plan,
                const PlanOptions& options, Console& console) {
  const Device device = DeviceOf(options);
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, {{"gpus", options.settings.gpus},
                        {"all_heads", PlanJson(all_heads, device)},
                        {"plan", PlanJson(plan, device)}});
  } else {
    if (options.settings.gpus > 1) {
      console.out << "The fullest of " << options.settings.gpus
                  << " GPUs, which compute every layer together:\n\n";
    }
    console.out << RenderPlan(all_heads, plan, device);
  }
}

absl::Status WriteHtml(const std::string& path, const std::string& html,
                       Console& console) {
  std::ofstream file(path, std::ios::binary);
  file << html;
  file.close();
  if (!file) {
    return absl::UnavailableError(
        absl::StrCat("--html: ", path, " cannot be written"));
  }
  console.err << "wrote " << path << "\n";
  return absl::OkStatus();
}

absl::Status RunSweep(const ModelShape& shape, const PlanOptions& options,
                      Console& console) {
  const absl::StatusOr<std::vector<SweepLine>> lines =
      Sweep(shape, options.settings);
  if (!lines.ok()) return lines.status();
  const Device device = DeviceOf(options);
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, {{"sweep", SweepJson(*lines, device)}});
  } else {
    console.out << RenderSweep(*lines);
  }
  if (options.html.empty()) return absl::OkStatus();
  return WriteHtml(options.html, SweepHtml(options.model, *lines, device),
                   console);
}

absl::Status PlanFiles(const PlanOptions& options, Console& console) {
  const absl::StatusOr<ModelShape> shape = ReadModelShape(options.model);
  if (!shape.ok()) return shape.status();
  if (options.sweep) return RunSweep(*shape, options, console);
  const absl::StatusOr<HeadsFile> heads = MaskFor(options, *shape);
  if (!heads.ok()) return heads.status();
  PlanSettings settings = options.settings;
  settings.kv_head_rules = heads->streaming;
  settings.kv_dtype = options.kv_dtype.value_or(KvDtype::kF16);
  const absl::StatusOr<v1::CapacityPlan> plan =
      PlanLocally(*shape, settings, heads->mask);
  if (!plan.ok()) return plan.status();
  ModelShape unpruned = *shape;
  unpruned.pruned_heads = {};
  settings.kv_dtype = KvDtype::kF16;
  settings.kv_head_rules = {};
  const absl::StatusOr<v1::CapacityPlan> all_heads =
      PlanLocally(unpruned, settings, {});
  if (!all_heads.ok()) return all_heads.status();
  PrintPlans(*all_heads, *plan, options, console);
  if (settings.gpus > 1 && options.output == OutputFormat::kTable) {
    console.out << RenderExchange(*shape, *plan, settings.gpus);
  }
  if (!shape->served && options.output == OutputFormat::kTable) {
    console.out << "Models of type " << shape->architecture
                << " can be planned for, but not served yet.\n";
  }
  return absl::OkStatus();
}

// What a mask needs to know of the server's model.
ModelShape ShapeOf(const v1::Model& model) {
  ModelShape shape{.architecture = model.architecture(),
                   .layers = model.num_layers(),
                   .head_dim = model.head_dim()};
  for (const v1::LayerHeads& layer : model.layers()) {
    shape.heads.push_back(
        {layer.query_heads_unpruned(), layer.kv_heads_unpruned()});
  }
  return shape;
}

absl::Status AddMask(const PlanOptions& options, const Client& client,
                     v1::ModelService::Stub* stub,
                     v1::PlanCapacityRequest* request) {
  if (options.mask_file.empty() && !options.kept) return absl::OkStatus();
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::GetModelRequest get;
  get.set_name(options.model);
  v1::GetModelResponse model;
  const absl::Status status =
      client.Check(stub->GetModel(&context, get, &model));
  if (!status.ok()) return status;
  const absl::StatusOr<HeadsFile> file =
      MaskFor(options, ShapeOf(model.model()));
  if (!file.ok()) return file.status();
  if (!file->streaming.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.mask_file,
        ": stream: a running model is planned with the streaming heads that it "
        "has; plan for others from its config.json, without --running"));
  }
  for (const auto& [layer, heads] : file->mask.pruned) {
    (*request->mutable_pruned())[layer].mutable_query_heads()->Add(
        heads.begin(), heads.end());
  }
  return absl::OkStatus();
}

absl::Status PlanRunning(const PlanOptions& options, Console& console) {
  const Client client(options.client);
  const auto stub = v1::ModelService::NewStub(client.channel());
  v1::PlanCapacityRequest request;
  request.set_name(options.model);
  request.set_context_tokens(
      static_cast<int32_t>(options.settings.context_tokens));
  request.set_kv_pool_bytes(options.settings.kv_pool_bytes);
  if (options.kv_dtype) {
    request.set_kv_dtype(std::string(KvDtypeName(*options.kv_dtype)));
  }
  absl::Status status = AddMask(options, client, stub.get(), &request);
  if (!status.ok()) return status;
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::PlanCapacityResponse response;
  status = client.Check(stub->PlanCapacity(&context, request, &response));
  if (!status.ok()) return status;
  PrintPlans(response.all_heads(), response.plan(), options, console);
  return absl::OkStatus();
}

void AddPlannedModelFlags(CLI::App& app, PlanOptions* options) {
  app.add_option("MODEL", options->model,
                 "a config.json, a folder with one, or a GGUF file; with "
                 "--running, the name of a model");
  app.add_option("--mask-file,--mask", options->mask_file,
                 "heads to leave out, format heads/1")
      ->type_name("FILE");
  AddNumber<double>(
      app, "--keep",
      [options](double percent) { options->kept = percent / 100; }, {0, 100},
      "per cent of KV groups to keep, taken evenly from all layers, while "
      "there is no mask")
      ->type_name("PERCENT");
  AddChoice(
      app, "--kv", {"f16", "bf16", "f32", "fp8_e4m3", "int8", "int4"},
      [options](const std::string& name) {
        options->kv_dtype = *ParseKvDtype(name);
      },
      "how keys and values are stored; f16 unless set, or as the running "
      "model does");
  std::vector<std::string> types;
  for (int type = 0; type <= static_cast<int>(ElementType::kQ6_K); ++type) {
    types.push_back(absl::AsciiStrToLower(
        std::string(ElementTypeName(static_cast<ElementType>(type)))));
  }
  AddChoice(
      app, "--weights", types,
      [options, types](const std::string& name) {
        for (size_t i = 0; i < types.size(); ++i) {
          if (types[i] == name) {
            options->settings.weight_type = static_cast<ElementType>(i);
          }
        }
      },
      "how weights are stored; as the configuration says unless set");
  app.add_option_function<std::string>(
         "--context",
         [options](const std::string& text) {
           const std::optional<int64_t> tokens = ParseTokens(text);
           if (!tokens) {
             throw CLI::ValidationError(
                 "--context", absl::StrCat("'", text,
                                           "' is not a number of tokens; "
                                           "write for example 4096 or 32k"));
           }
           options->settings.context_tokens = *tokens;
         },
         "tokens of every sequence; the most that the model takes unless set")
      ->type_name("TOKENS");
}

void AddDeviceFlags(CLI::App& app, PlanOptions* options) {
  std::vector<std::string> names;
  for (const Device& gpu : KnownGpus()) names.push_back(gpu.name);
  AddChoice(
      app, "--gpu", names,
      [options](const std::string& name) {
        options->settings.gpu = *FindGpu(name);
      },
      "what to plan for; this CPU unless set");
  AddNumber(app, "--gpus", &options->settings.gpus, {1, 1024},
            "so many of them, each with a part of every layer's heads; the "
            "server itself runs on one");
  AddByteSize(
      app, "--bandwidth",
      [options](int64_t bytes) {
        options->bandwidth = static_cast<double>(bytes);
      },
      "that the device reads in a second, over what is known of it");
  AddNumber(app, "--tflops", &options->tflops, {0.001, 100000},
            "10^12 operations that the device computes in a second, likewise");
  AddByteSize(
      app, "--kv-pool",
      [options](int64_t bytes) { options->settings.kv_pool_bytes = bytes; },
      "of the KV pool; unless set, what serve takes (1GiB), or 90 % of a GPU's "
      "memory less weights and 1 GiB");
  AddNumber(app, "--watermark", &options->settings.watermark,
            {0, kMaxWatermark}, "part of the pool that admission leaves free")
      ->type_name("PART");
  AddNumber(app, "--step-tokens", &options->settings.step_tokens,
            {1, kMaxStepTokens},
            "tokens that one step may compute, and sequences");
}

void CheckTogether(const PlanOptions& options) {
  if (options.model.empty() && !options.running) {
    throw CLI::ValidationError("MODEL", "name a config.json or a folder");
  }
  if (!options.mask_file.empty() && options.kept) {
    throw CLI::ValidationError("--keep", "is for where there is no mask file");
  }
  if (options.settings.gpus > 1 && (options.running || !options.settings.gpu)) {
    throw CLI::ValidationError(
        "--gpus", options.running
                      ? "is for a model on this machine: leave out --running"
                      : "name the GPU too, for example --gpu h100");
  }
  if (!options.sweep) return;
  if (options.running || !options.mask_file.empty() || options.kept ||
      options.kv_dtype) {
    throw CLI::ValidationError(
        "--sweep",
        "varies groups and dtype itself, and only of a model on "
        "this machine: leave out --mask-file, --keep, --kv and "
        "--running");
  }
}

}  // namespace

Command PlanCommand(CLI::App& root) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App& app = AddCommand(
      root, "plan", "what would a model cost, and how many sequences fit?");
  AddPlannedModelFlags(app, options.get());
  AddDeviceFlags(app, options.get());
  app.add_flag("--sweep", options->sweep,
               "sequences by share of KV groups kept, and by KV dtype");
  app.add_option("--html", options->html,
                 "write the sweep to this file as a plot")
      ->type_name("FILE");
  app.add_flag("--running", options->running,
               "ask a server about a model that it has loaded");
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
  app.parse_complete_callback([options] {
    options->sweep = options->sweep || !options->html.empty();
    CheckTogether(*options);
  });
  app.footer(
      "Arithmetic only: reads config.json, or the keys of a GGUF file, and no\n"
      "weights. Blocks, slabs and the watermark are computed by the functions\n"
      "that the KV pool and the scheduler use. Times are what the device's\n"
      "datasheet allows, which nothing reaches. docs/plan.md explains every\n"
      "line.\n\n" +
      Examples({
          {"how many conversations of 32k tokens fit a GPU?",
           "headcount plan config.json --gpu h100 --context 32k"},
          {"what would half of the KV groups change, or int8?",
           "headcount plan config.json --gpu h100 --context 32k --keep 50 "
           "--kv int8"},
          {"a model that is too large for one GPU",
           "headcount plan config.json --gpu h100 --gpus 4 --context 32k"},
          {"a mask, before anything is loaded",
           "headcount plan models/mailroom --mask-file "
           "models/mailroom/heads_half.json"},
          {"all of that as a plot",
           "headcount plan config.json --gpu h100 --context 32k --html "
           "plan.html"},
          {"a model of a running server, in a larger pool",
           "headcount plan mailroom --running --kv-pool 4GiB"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return options->running ? PlanRunning(*options, console)
                                    : PlanFiles(*options, console);
          }};
}

}  // namespace headcount
