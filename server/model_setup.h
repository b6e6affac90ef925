// From the configuration to what the server runs.
//
//   absl::StatusOr<LoadedModels> models = LoadModels(config, backend.get());
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend/backend.h"
#include "engine/engine.h"
#include "headcount/config/v1/config.pb.h"
#include "headcount/v1/model.pb.h"
#include "heads/head_layout.h"
#include "model/model_shape.h"
#include "server/failed_model.h"
#include "text/chat_template.h"
#include "text/prompt_template.h"
#include "text/tokenizer.h"

namespace headcount {

// What Classify needs of a model.
struct ClassifySetup {
  struct Label {
    std::string text;
    std::vector<int32_t> ids;  // at least one
  };
  PromptTemplate prompt;
  std::vector<Label> labels;  // at least two, all different
};

// A model as the services know it: plain data, immutable while serving.
struct ServedModel {
  std::string name;
  std::string base;      // whose variant it is; empty: it has weights
  int index = 0;         // in the engine
  uint64_t load_id = 0;  // tells it from others that had this index
  int position = 0;      // in the configuration
  std::shared_ptr<const Tokenizer> tokenizer;
  int32_t vocab = 0;             // ids of requests are below it
  int32_t max_context = 0;       // tokens, prompt and answer together
  std::vector<int32_t> eos_ids;  // the model's end-of-text tokens
  std::optional<ClassifySetup> classify;
  // Or why the model takes no conversations, without a path.
  absl::StatusOr<ChatTemplate> chat =
      absl::NotFoundError("it has no chat template");
  // What GetModel answers, without what changes: state, kv_bytes_used and
  // requests_*.
  v1::Model description;
  // What PlanCapacity reckons with: what of the model costs something, the
  // heads that run, and those of its weights (a variant's: its base's).
  ModelShape shape;
  std::shared_ptr<const HeadLayout> heads;
  std::shared_ptr<const HeadLayout> weight_heads;
  int64_t weight_bytes = 0;  // of weight_heads
  std::string mask_digest;   // 8 hex digits of the mask; empty: all heads run
  absl::Duration load_time;
};

// Sequences of one set of weights that run at once, at most.
int32_t MaxRunning(int32_t step_tokens);

struct LoadedModel {
  EngineModel engine;
  ServedModel served;
};

// A configured model that nobody has asked for yet.
struct LaterModel {
  std::string name;
  std::string base;  // as ServedModel's
};

// In the order of the configuration, but for variants: they come after all
// others, so that their bases are there.
struct LoadedModels {
  std::vector<LoadedModel> loaded;  // with `index` set
  std::vector<FailedModel> failed;
  std::vector<LaterModel> unloaded;
};

// Bytes of a model's tensors that are done with, of all; see ModelOptions.
using LoadProgress = std::function<void(int64_t read, int64_t total)>;

// Reads tokenizer and weights of one model. Errors name the field or file to
// mend, but not the model. The backend outlives the result. Thread-safe.
absl::StatusOr<LoadedModel> LoadModel(const config::v1::ModelSpec& spec,
                                      const EngineOptions& options,
                                      Backend* backend,
                                      LoadProgress progress = nullptr);

// The same of a variant, which shares what `base` and `served` are of the model
// whose variant it is: only the mask is read.
absl::StatusOr<LoadedModel> LoadVariant(const config::v1::ModelSpec& spec,
                                        const EngineModel& base,
                                        const ServedModel& served);

// The same for all models of a valid configuration that are to be loaded at
// start. The error of the first if none of them loads, and there is one. These
// errors name the model, too.
absl::StatusOr<LoadedModels> LoadModels(const config::v1::ServerConfig& config,
                                        Backend* backend);

// InvalidArgument for a label or template that the tokenizer cannot carry.
absl::StatusOr<ClassifySetup> SetUpClassify(const config::v1::Classify& spec,
                                            const Tokenizer& tokenizer);

}  // namespace headcount
