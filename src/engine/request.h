// What a caller asks of the engine, and what it hears back. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace headcount {

class HeadStatistics;
class LayerInputs;

using RequestId = uint64_t;  // given by the engine, never reused

// How tokens are drawn and when a sequence ends. Validated by the caller: the
// engine takes finite values in range for granted.
struct SamplingParams {
  float temperature = 0;  // 0: greedy
  int32_t top_k = 0;      // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // see backend/sampling.h for all of these
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  std::map<int32_t, float> logit_bias;  // by token; -infinity: never drawn
  uint64_t seed = 0;
  int32_t max_tokens = 0;  // to generate
  int32_t min_tokens = 0;  // no stop token or end of text before
  bool ignore_eos = false;
  std::vector<int32_t> stop_ids;   // besides the model's end-of-text ids
  std::vector<std::string> stops;  // not part of the text that is returned
  // If not empty, the answer is one of these, each of at least one token; no
  // two are equal. Where one begins another, end of text tells them apart.
  std::vector<std::vector<int32_t>> choices;
  bool logprobs = false;     // of each generated token
  int32_t top_logprobs = 0;  // and of so many alternatives
};

// Log-probabilities of the whole vocabulary at places of a text.
struct LogprobRows {
  LogprobRows(size_t places, size_t its_vocab)
      : vocab(its_vocab), values(places * its_vocab) {}

  size_t places() const { return values.size() / vocab; }
  absl::Span<float> Row(size_t place) {
    return absl::MakeSpan(values).subspan(place * vocab, vocab);
  }
  absl::Span<const float> Row(size_t place) const {
    return absl::MakeConstSpan(values).subspan(place * vocab, vocab);
  }

  const size_t vocab;         // over 0
  std::vector<float> values;  // [place][vocab]
};

struct Request {
  int model = 0;                // index in the engine
  uint64_t load_id = 0;         // EngineModel::load_id of the one that is meant
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  absl::Time deadline = absl::InfiniteFuture();
  // Who asks; empty: the one without a name. Tenants of a model share it
  // fairly and do not see each other's prefixes in the cache.
  std::string tenant = {};
  int32_t priority = 0;         // the higher, the sooner it is admitted
  std::string cache_salt = {};  // keeps its prefixes apart from other salts'

  // To score instead of generating (max_tokens is 0): each of these, of at
  // least one token, is read as what follows the prompt, which is computed
  // once. Ends with kLength.
  std::vector<std::vector<int32_t>> continuations;

  // Factors from 0 to 1 on the context vectors of query heads, before the
  // output projection: [layer][query head] of the unpruned model, in one list.
  // Empty: all 1.
  std::vector<float> head_gates;

  // Both with a single continuation only; a place for each of its tokens, over
  // the model's vocabulary. The caller, who made them, bounds their memory: it
  // does not count as the request's.
  //
  // Filled by the engine until it calls OnScores.
  std::shared_ptr<LogprobRows> kept_rows = nullptr;
  // Rows that another request has filled, to be compared with this one's.
  std::shared_ptr<const LogprobRows> reference_rows = nullptr;

  // Where what the model's heads put out is added, for each computed token but
  // the first `statistics_skip`, once; made for the heads that the model runs.
  // The step thread's until OnEnd.
  std::shared_ptr<HeadStatistics> statistics = nullptr;
  int32_t statistics_skip = 0;

  // For runs of the same tokens under many gates: one fills kept_inputs, from
  // its first_layer on, and what has the same gates in all layers before its
  // own `first_layer` is taken up there. Both have room for every computed
  // token (ComputedTokens), and only where each has one place; the caller
  // bounds their memory.
  std::shared_ptr<LayerInputs> kept_inputs = nullptr;
  std::shared_ptr<const LayerInputs> inputs = nullptr;
  int32_t first_layer = 0;
};

// Memory that the request holds while it waits, about.
int64_t RequestBytes(const Request& request);
// Tokens of the prompt and of all continuations.
int64_t GivenTokens(const Request& request);
// Tokens that are computed if each of them has a place of its own in the
// sequence; absent if continuations take turns at the same places.
std::optional<int64_t> ComputedTokens(const Request& request);
// The most tokens that may stand after the prompt at once.
int64_t MaxNewTokens(const Request& request);

struct TopLogprob {
  int32_t token = 0;
  float logprob = 0;
};

struct GeneratedToken {
  int32_t id = 0;
  float logprob = 0;  // 0 unless asked for
  std::vector<TopLogprob> top;
};

// One step's news of one request.
struct Output {
  std::vector<GeneratedToken> tokens;  // also the one that stops it
  std::string text;  // whole UTF-8 characters; stop strings never show
};

// The scores that a request asked for; sent once.
struct Scores {
  // [continuation][its tokens], each token given all before it.
  std::vector<std::vector<float>> logprobs;
  // [token of the continuation] KL(reference_rows || this request's), in nats;
  // empty without a reference.
  std::vector<double> divergences = {};
};

// Every accepted request ends exactly once, in one of these ways.
enum class EndCause { kStop, kLength, kCancelled, kDeadline, kError };
std::string_view EndCauseName(EndCause cause);  // "stop", "length", ...

struct Ending {
  EndCause cause = EndCause::kStop;
  absl::Status status;  // OK for stop and length
  // What stopped it: an id, or a stop string; both absent otherwise.
  std::optional<int32_t> stop_id;
  std::string stop_string;
  // Which of the choices the answer is.
  std::optional<int32_t> choice;

  int32_t prompt_tokens = 0;  // of the prompt and the continuations
  int32_t generated_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt, found in the prefix cache
  absl::Time submitted, scheduled, first_token, ended;  // InfinitePast: never
};

// Where the news of one request goes. Called on the engine's step thread, so
// an implementation never blocks; OnEnd is the last call, exactly one.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // By value: who overrides it keeps them.
  // NOLINTNEXTLINE(performance-unnecessary-value-param)
  virtual void OnScores(Scores) {}
  virtual void OnOutput(Output output) = 0;
  virtual void OnEnd(Ending ending) = 0;
};

}  // namespace headcount
