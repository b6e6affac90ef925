// Engines over real models on the CPU backend, and what their callers heard.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "heads/head_mask.h"
#include "heads/kv_dtype.h"

namespace headcount {

// Stands still until it is told to move. Thread-safe.
class ManualClock final : public Clock {
 public:
  absl::Time Now() const override {
    MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration by) {
    MutexLock lock(&mutex_);
    now_ += by;
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1000000);
};

// All that one request was told.
struct Heard {
  std::vector<Scores> scores;
  std::vector<GeneratedToken> tokens;
  std::string text;
  std::vector<Ending> endings;
  bool late = false;  // something came after the ending

  std::vector<int32_t> ids() const;
  const Ending& ending() const { return endings.at(0); }
};

// Whether both heard the same, to the bit; times apart.
bool SameAnswer(const Heard& a, const Heard& b);

// A sink that remembers. Thread-safe.
class Recorder final : public RequestSink {
 public:
  void OnScores(Scores scores) override;
  void OnOutput(Output output) override;
  void OnEnd(Ending ending) override;

  void AwaitTokens(size_t count) const;  // or the ending
  void AwaitEnd() const;
  Heard heard() const;
  bool ended() const;

 private:
  mutable Mutex mutex_;
  mutable CondVar news_;
  Heard heard_ ABSL_GUARDED_BY(mutex_);
};

struct ModelSpec {
  std::string path;
  HeadMask mask = {};
  int32_t max_context = 0;  // 0: the model's
  int32_t max_concurrent = 0;
  PoolQuota quota = {};
};

inline constexpr double kScoreError = 1e-4;
inline constexpr int64_t kSlab = int64_t{2} << 20;  // of small pools

std::string MailroomPath();
std::string TinyPath(const std::string& name);

// KV pages in float32, and mailroom's tokenizer.
EngineModel LoadModel(const ModelSpec& spec, const EngineOptions& options,
                      Backend* backend);
// The same over the weights of `base`; spec.path is only its name.
EngineModel LoadVariant(const EngineModel& base, const ModelSpec& spec);
std::unique_ptr<Engine> MakeEngine(const std::vector<ModelSpec>& models,
                                   const EngineOptions& options,
                                   const Clock* clock);
// In small steps, so that a continuation is scored in pieces.
std::unique_ptr<Engine> MakeSmallStepMailroom(const Clock* clock,
                                              int64_t slabs = 8);

// Some mail's token ids, `count` of them, which differ with `start`.
std::vector<int32_t> MailTokens(size_t start, size_t count);

Request MakeRequest(std::vector<int32_t> prompt, int32_t max_tokens);

// Scores the continuations after the prompt.
Request MakeScoreRequest(std::vector<int32_t> prompt,
                         std::vector<std::vector<int32_t>> continuations);

// Log-probabilities of mailroom from one Forward of a whole sequence.
class DirectScores {
 public:
  DirectScores();
  ~DirectScores();

  // [position][vocab]: of the token after each position.
  std::vector<std::vector<double>> Of(const std::vector<int32_t>& tokens) const;

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
};

// Submits, and runs the engine on this thread until there is nothing to do.
std::vector<Heard> RunAll(Engine* engine, const std::vector<Request>& requests);

}  // namespace headcount
