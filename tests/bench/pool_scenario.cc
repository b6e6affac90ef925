// Three models under bursts that do not coincide, on one KV pool that they
// share, on the same with a floor of a sixth for each, and on the same memory
// split equally among them. The split is made of quotas, too (floor = ceiling =
// a third), so that all else is the same: arrivals, code, threads. Prints a
// line of JSON for each request and for the pool's use over time;
// tests/bench/plot_pool_scenario.py makes the summary and a picture.
//
//   pool_scenario [seconds [seed [variant [load]]]] > scenario.jsonl
//
// With `variant`, the pruned model is one of the other's: it shares its weights
// and runs in its steps. `load` multiplies the rates of arrival: bursts should
// fill the pool, and a machine that cannot keep up shows only that.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "backend/cpu/cpu_backend.h"
#include "base/check.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "nlohmann/json.hpp"
#include "tests/bench/bench_data.h"

namespace headcount {
namespace {

constexpr int64_t kPoolBytes = int64_t{72} << 20;
constexpr int32_t kQueue = 8;  // requests that may wait
const char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";
const char kSmolLM2[] = HEADCOUNT_SOURCE_DIR "/models/smollm2-135m";

struct Load {
  const char* name;
  const char* path;
  bool pruned;  // one KV group of three in ten layers
  double calm;  // requests a second
  double burst;
  int prompt[2];  // tokens, from and to
  int answer[2];
};

// The embedded model classifies and extracts; the two others converse.
constexpr Load kLoads[] = {
    {"mailroom", kMailroom, false, 1.0, 12.0, {300, 900}, {32, 96}},
    {"smollm2", kSmolLM2, false, 0.05, 3.0, {64, 128}, {200, 300}},
    {"smollm2-pruned", kSmolLM2, true, 0.05, 3.0, {64, 128}, {200, 300}},
};
constexpr int kModels = 3;

struct Pool {
  const char* name;
  int floor_sixths;  // of the pool, for each model
  int ceiling_sixths;
};

constexpr Pool kPools[] = {{"shared", 0, 6}, {"floors", 1, 6}, {"split", 2, 2}};

struct Arrival {
  double at = 0;  // seconds
  Request request;
};

// Each model has a burst of a sixth of the time, one after the other.
std::vector<Arrival> Arrivals(double seconds, uint64_t seed, double load_factor,
                              const std::vector<int32_t>& vocab) {
  std::mt19937_64 random(seed);
  const auto pick = [&](const int(&range)[2]) {
    return std::uniform_int_distribution<int>(range[0], range[1])(random);
  };
  std::vector<Arrival> arrivals;
  for (int model = 0; model < kModels; ++model) {
    const Load& load = kLoads[model];
    const double begin = seconds * (0.1 + 0.3 * model);
    const double end = begin + seconds / 6;
    double at = 0;
    while (true) {
      at += std::exponential_distribution<>(load.burst * load_factor)(random);
      if (at > seconds) break;
      const bool bursts = at >= begin && at < end;
      if (!bursts &&
          !std::bernoulli_distribution(load.calm / load.burst)(random)) {
        continue;
      }
      Arrival& arrival = arrivals.emplace_back();
      arrival.at = at;
      arrival.request.model = model;
      for (int i = pick(load.prompt); i > 0; --i) {
        arrival.request.prompt.push_back(static_cast<int32_t>(
            random() %
            static_cast<uint64_t>(vocab[static_cast<size_t>(model)])));
      }
      arrival.request.sampling.max_tokens = pick(load.answer);
      arrival.request.sampling.ignore_eos = true;
    }
  }
  std::sort(arrivals.begin(), arrivals.end(),
            [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
  return arrivals;
}

// Prints the ending of one request.
class Printer final : public RequestSink {
 public:
  Printer(nlohmann::json line, Mutex* output)
      : line_(std::move(line)), output_(output) {}

  void OnOutput(Output) override {}
  void OnEnd(Ending ending) override {
    line_["outcome"] = EndCauseName(ending.cause);
    line_["tokens"] = ending.generated_tokens;
    line_["ttft"] =
        absl::ToDoubleSeconds(ending.first_token - ending.submitted);
    line_["seconds"] = absl::ToDoubleSeconds(ending.ended - ending.submitted);
    MutexLock lock(output_);
    std::cout << line_ << "\n";
  }

 private:
  nlohmann::json line_;
  Mutex* const output_;
};

std::unique_ptr<Engine> MakeEngine(const Pool& pool, bool variant,
                                   const Clock* clock) {
  std::unique_ptr<Backend> backend =
      CreateCpuBackend({.threads = BenchThreads()});
  std::vector<EngineModel> models;
  for (const Load& load : kLoads) {
    EngineModel& model = models.emplace_back();
    model.name = load.name;
    HeadMask mask;
    for (int layer = 0; load.pruned && layer < 10; ++layer) {
      mask.pruned[3 * layer] = {0, 1, 2};
    }
    if (load.pruned && variant) {
      model.model = models[models.size() - 2].model;
      model.variant = model.model->MakeVariant({.mask = mask}).value();
    } else {
      model.model =
          Model::Load({.path = load.path, .mask = mask}, backend.get()).value();
    }
    model.tokenizer =
        std::make_shared<Tokenizer>(Tokenizer::Load(load.path).value());
    model.max_context = 2048;
    model.quota = {.floor_bytes = kPoolBytes / 6 * pool.floor_sixths,
                   .ceiling_bytes = kPoolBytes / 6 * pool.ceiling_sixths};
  }
  return Engine::Create({.kv_pool_bytes = kPoolBytes,
                         .max_queued_requests = kQueue,
                         .prefix_cache = false},
                        std::move(backend), std::move(models), clock)
      .value();
}

void PrintPool(const Pool& pool, double at, const Engine& engine,
               Mutex* output) {
  nlohmann::json line = {{"pool", pool.name}, {"at", at}};
  for (const EngineSnapshot::PerModel& model : engine.Snapshot().models) {
    line["used"].push_back(model.kv.used);
    line["waiting"].push_back(model.waiting);
  }
  MutexLock lock(output);
  std::cout << line << "\n";
}

bool Busy(const Engine& engine) {
  const EngineSnapshot snapshot = engine.Snapshot();
  return std::any_of(snapshot.models.begin(), snapshot.models.end(),
                     [](const EngineSnapshot::PerModel& model) {
                       return model.running + model.waiting > 0;
                     });
}

void Play(const Pool& pool, double seconds, uint64_t seed, bool variant,
          double load_factor) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeEngine(pool, variant, &clock);
  std::vector<int32_t> vocab;
  for (int i = 0; i < kModels; ++i) {
    vocab.push_back(engine->model(i)->model->config().vocab);
  }
  Mutex output;
  engine->Start();
  const absl::Time start = absl::Now();
  double sampled = 0;
  const auto wait_until = [&](double at) {
    while (sampled < at) {
      absl::SleepFor(start + absl::Seconds(sampled) - absl::Now());
      PrintPool(pool, sampled, *engine, &output);
      sampled += 0.25;
    }
    absl::SleepFor(start + absl::Seconds(at) - absl::Now());
  };
  for (Arrival& arrival : Arrivals(seconds, seed, load_factor, vocab)) {
    wait_until(arrival.at);
    nlohmann::json line = {{"pool", pool.name},
                           {"model", kLoads[arrival.request.model].name},
                           {"submitted", arrival.at},
                           {"prompt", arrival.request.prompt.size()}};
    auto printer = std::make_shared<Printer>(line, &output);
    if (engine->Submit(std::move(arrival.request), printer).ok()) continue;
    line["outcome"] = "refused";
    MutexLock lock(&output);
    std::cout << line << "\n";
  }
  for (double at = seconds; Busy(*engine); at += 0.25) wait_until(at);
  engine->Stop();
}

}  // namespace
}  // namespace headcount

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 60;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const bool variant = argc > 3 && std::string(argv[3]) == "variant";
  const double load_factor = argc > 4 ? std::atof(argv[4]) : 1;
  for (const headcount::Pool& pool : headcount::kPools) {
    headcount::Play(pool, seconds, seed, variant, load_factor);
  }
}
