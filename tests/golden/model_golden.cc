#include "tests/golden/model_golden.h"

#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <set>

#include "base/check.h"
#include "nlohmann/json.hpp"
#include "tests/golden/golden.h"

namespace headcount {
namespace {

using ::nlohmann::json;

template <typename T>
std::vector<T> ListOf(const json& object, const char* key) {
  return object.contains(key) ? object.at(key).get<std::vector<T>>()
                              : std::vector<T>();
}

HeadMask MaskOf(const json& layers) {
  HeadMask mask;
  for (const auto& [layer, heads] : layers.items()) {
    mask.pruned[std::stoi(layer)] = heads.get<std::set<int>>();
  }
  return mask;
}

GoldenCase CaseOf(const json& from) {
  GoldenCase to;
  to.mask = from.at("mask").get<std::string>();
  to.ids = ListOf<int32_t>(from, "ids");
  to.name = from.value("name", to.mask + "/" + std::to_string(to.ids.size()));
  to.last_logits = ListOf<double>(from, "last_logits");
  to.token_logprobs = ListOf<double>(from, "token_logprobs");
  if (from.contains("logits")) {
    for (const json& position : from.at("logits")) {
      to.positions.push_back(
          {.position = position.at("position").get<int64_t>(),
           .top_ids = ListOf<int32_t>(position, "top_ids"),
           .top_logits = ListOf<double>(position, "top_logits"),
           .logsumexp = position.at("logsumexp").get<double>()});
    }
  }
  // Null where the prompt is a single token.
  if (from.contains("mean_nll") && from.at("mean_nll").is_number()) {
    to.mean_nll = from.at("mean_nll").get<double>();
  }
  to.greedy = ListOf<int32_t>(from, "greedy");
  to.greedy_margins = ListOf<double>(from, "greedy_margins");
  return to;
}

std::string GoldenDirectory() {
  const char* directory = std::getenv("HEADCOUNT_GOLDEN_DIR");
  return directory != nullptr ? directory
                              : HEADCOUNT_SOURCE_DIR "/tests/data/golden";
}

// Adds the model if one of `files` is there, plain or compressed.
void AddModel(const std::string& name, const std::string& path,
              std::initializer_list<std::string> files,
              std::vector<GoldenModel>* models) {
  for (const std::string& file : files) {
    if (!std::filesystem::exists(file)) continue;
    const json golden = json::parse(ReadGzipFile(file));
    GoldenModel& model = models->emplace_back();
    model.name = name;
    model.path = path;
    for (const auto& [mask, layers] : golden.at("masks").items()) {
      model.masks[mask] = MaskOf(layers);
    }
    for (const json& golden_case : golden.at("cases")) {
      model.cases.push_back(CaseOf(golden_case));
    }
    return;
  }
}

}  // namespace

std::vector<GoldenModel> ReadGoldenModels() {
  const std::string source = HEADCOUNT_SOURCE_DIR;
  const std::string directory = GoldenDirectory();
  std::vector<GoldenModel> models;
  std::set<std::string> tiny;
  if (std::filesystem::exists(directory + "/tiny")) {
    for (const auto& entry :
         std::filesystem::directory_iterator(directory + "/tiny")) {
      const std::string name = entry.path().filename().string();
      for (const char* served : {"llama", "mistral", "qwen2", "qwen3"}) {
        if (name.rfind(served, 0) == 0) tiny.insert(name);
      }
    }
  }
  for (const std::string& name : tiny) {
    const std::string path = directory + "/tiny/" + name;
    AddModel(name, path, {path + "/expected.json", path + "/expected.json.gz"},
             &models);
  }
  // A bundle for another machine has it beside the values.
  const std::string beside = directory + "/mailroom";
  AddModel("mailroom",
           std::filesystem::exists(beside + "/config.json")
               ? beside
               : source + "/models/mailroom",
           {directory + "/mailroom/logits.json",
            directory + "/mailroom/logits.json.gz",
            directory + "/mailroom_logits.json.gz"},
           &models);
  CHECK(!models.empty()) << "no golden values in " << directory;
  return models;
}

GoldenModel ReadSmolLm2Golden() {
  const std::string directory = GoldenDirectory();
  std::vector<GoldenModel> models;
  AddModel("smollm2-135m", "",
           {directory + "/smollm2-135m/logits.json",
            directory + "/smollm2-135m/logits.json.gz",
            directory + "/smollm2_135m_logits.json.gz"},
           &models);
  CHECK(!models.empty()) << "no golden values in " << directory;
  return models.front();
}

}  // namespace headcount
