#include "cli/generate.h"

#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/number_flags.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/table.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "server/limits.h"

namespace headcount {
namespace {

constexpr int32_t kMaxTokens = 128;  // unless set

struct GenerateOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  std::string model;
  std::string prompt;
  std::vector<int32_t> prompt_ids;
  std::optional<int32_t> max_tokens;
  int32_t min_tokens = 0;
  std::vector<std::string> stops;
  bool ignore_eos = false;
  bool logprobs = false;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::map<int32_t, float> logit_bias;
  std::vector<std::string> choices;
  std::optional<uint64_t> seed;
  int32_t priority = 0;
};

void AddPromptFlags(CLI::App& app, GenerateOptions* options) {
  CLI::Option* text =
      app.add_option("-p,--prompt,PROMPT", options->prompt,
                     "the text to continue; '-' reads standard input");
  CLI::Option* ids =
      app.add_option_function<std::vector<std::string>>(
             "--prompt-ids",
             [options](const std::vector<std::string>& texts) {
               for (const std::string& id : texts) {
                 options->prompt_ids.push_back(
                     ReadNumber<int32_t>("--prompt-ids", id, {.least = 0}));
               }
             },
             "the prompt as token ids, such as 0,312,87")
          ->delimiter(',')
          ->allow_extra_args(false)
          ->type_name("IDS")
          ->excludes(text);
  AddModel(app, &options->model);
  AddPriority(app, &options->priority);
  AddOutput(app, &options->output);
  app.parse_complete_callback([text, ids] {
    if (text->count() + ids->count() == 0) {
      throw CLI::ValidationError(
          "PROMPT",
          "give the text to continue, '-' for standard input, or "
          "--prompt-ids");
    }
  });
}

// "ID:BIAS".
void ReadLogitBias(const std::string& text, GenerateOptions* options) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  int32_t token = 0;
  float bias = 0;
  if (!absl::SimpleAtoi(parts.first, &token) ||
      !absl::SimpleAtof(parts.second, &bias)) {
    throw CLI::ValidationError(
        "--logit-bias",
        absl::StrCat("'", text, "' is not ID:BIAS, such as 312:-5"));
  }
  options->logit_bias[token] = bias;
}

// Texts that end an answer, or are one.
void AddEndFlags(CLI::App& app, GenerateOptions* options) {
  const auto texts = [&app](const std::string& name,
                            std::vector<std::string>& value,
                            const std::string& description) {
    app.add_option(name, value, description)
        ->allow_extra_args(false)
        ->type_name("TEXT")
        ->group("Sampling");
  };
  texts("--stop", options->stops,
        "end before this text; can be given up to 8 times");
  texts("--choice", options->choices,
        "the answer is exactly one of these; given once for each");
}

void AddSamplingFlags(CLI::App& app, GenerateOptions* options) {
  const auto number = [&app](const std::string& name, auto* value,
                             const auto& range,
                             const std::string& description) {
    return AddNumber(app, name, value, range, description)->group("Sampling");
  };
  const Range<float> part = {0, 1};
  const Range<float> penalty = {-kMaxPenalty, kMaxPenalty};
  number("--temperature", &options->temperature,
         Range<float>{0, kMaxTemperature},
         "0, which is greedy, unless set; 1 draws from the model's "
         "distribution");
  number("--top-k", &options->top_k, Range<int32_t>{.least = 0},
         "draw from the N likeliest tokens only");
  number("--top-p", &options->top_p, part,
         "draw from the smallest set of tokens that has this probability");
  number("--min-p", &options->min_p, part,
         "draw from tokens at least this likely relative to the likeliest");
  number("--repetition-penalty", &options->repetition_penalty,
         Range<float>{kMinRepetitionPenalty, kMaxRepetitionPenalty},
         "divides the logits of tokens in the prompt and the text so far; 1 "
         "is none");
  number("--presence-penalty", &options->presence_penalty, penalty,
         "taken off the logits of tokens in the text so far");
  number("--frequency-penalty", &options->frequency_penalty, penalty,
         "the same, for each time that a token is in the text");
  app.add_option_function<std::vector<std::string>>(
         "--logit-bias",
         [options](const std::vector<std::string>& biases) {
           for (const std::string& text : biases) ReadLogitBias(text, options);
         },
         "added to the logit of a token; -100 bans it; can be given up to 300 "
         "times")
      ->allow_extra_args(false)
      ->type_name("ID:BIAS")
      ->group("Sampling");
  number("--seed", &options->seed, Range<uint64_t>{}, "same seed, same text");
  number("--max-tokens", &options->max_tokens, Range<int32_t>{.least = 1},
         "tokens to generate at most")
      ->default_str(absl::StrCat(kMaxTokens));
  number("--min-tokens", &options->min_tokens, Range<int32_t>{.least = 0},
         "tokens before the end of text or a stop counts");
  AddEndFlags(app, options);
  app.add_flag("--ignore-eos", options->ignore_eos,
               "generate on past the model's end of text")
      ->group("Sampling");
  app.add_flag("--logprobs", options->logprobs,
               "the log-probability of each token, after the text")
      ->group("Sampling");
}

v1::GenerateRequest MakeRequest(const GenerateOptions& options,
                                Console& console) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  request.set_priority(options.priority);
  if (!options.prompt_ids.empty()) {
    request.mutable_tokens()->mutable_ids()->Assign(options.prompt_ids.begin(),
                                                    options.prompt_ids.end());
  } else if (options.prompt == "-") {
    request.set_text({std::istreambuf_iterator<char>(console.in), {}});
  } else {
    request.set_text(options.prompt);
  }
  v1::SamplingParams* sampling = request.mutable_sampling();
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.min_p) sampling->set_min_p(*options.min_p);
  if (options.seed) sampling->set_seed(*options.seed);
  if (options.repetition_penalty) {
    sampling->set_repetition_penalty(*options.repetition_penalty);
  }
  if (options.presence_penalty) {
    sampling->set_presence_penalty(*options.presence_penalty);
  }
  if (options.frequency_penalty) {
    sampling->set_frequency_penalty(*options.frequency_penalty);
  }
  sampling->mutable_logit_bias()->insert(options.logit_bias.begin(),
                                         options.logit_bias.end());
  request.mutable_choices()->Assign(options.choices.begin(),
                                    options.choices.end());
  // An answer of choices is as long as they are.
  if (options.max_tokens || options.choices.empty()) {
    request.set_max_tokens(options.max_tokens.value_or(kMaxTokens));
  }
  request.set_min_tokens(options.min_tokens);
  request.mutable_stop()->Assign(options.stops.begin(), options.stops.end());
  request.set_ignore_eos(options.ignore_eos);
  request.set_logprobs(options.logprobs);
  return request;
}

std::string ReasonName(const v1::GenerateResponse& last) {
  if (last.finish_reason() == v1::FINISH_REASON_LENGTH) return "length";
  if (last.has_choice()) return "choice";
  return last.stopped_by_case() == v1::GenerateResponse::kStopString
             ? "stop string"
             : "end of text";
}

// The whole answer, put together from the messages of the stream.
struct Answer {
  std::string text;
  std::vector<v1::GeneratedToken> tokens;
  v1::GenerateResponse last;
};

void PrintAnswer(const GenerateOptions& options, const Answer& answer,
                 Console& console) {
  Json json = {{"text", answer.text},
               {"finish_reason", ReasonName(answer.last)},
               {"token_ids", Json::array()}};
  if (answer.last.has_choice()) json["choice"] = answer.last.choice();
  for (const auto& token : answer.tokens) {
    json["token_ids"].push_back(token.token_id());
    if (options.logprobs) json["logprobs"].push_back(token.logprob());
  }
  const v1::Usage& usage = answer.last.usage();
  json["usage"] = {{"prompt_tokens", usage.prompt_tokens()},
                   {"generated_tokens", usage.generated_tokens()},
                   {"time_to_first_token_ms", usage.time_to_first_token_ms()},
                   {"total_ms", usage.total_ms()}};
  PrintJson(console, json);
}

void PrintLogprobs(const Answer& answer, Console& console) {
  Table table({{"TOKEN", Align::kRight}, {"LOGPROB", Align::kRight}});
  for (const auto& token : answer.tokens) {
    table.AddRow({absl::StrCat(token.token_id()),
                  absl::StrFormat("%.4f", token.logprob())});
  }
  console.out << table.Render();
}

void PrintFooter(const Answer& answer, absl::Duration first,
                 absl::Duration total, Console& console) {
  const v1::Usage& usage = answer.last.usage();
  const double rest = absl::ToDoubleSeconds(total - first);
  const double speed = rest > 0 ? (usage.generated_tokens() - 1) / rest : 0;
  console.err << absl::StrFormat(
      "%d prompt tokens, %d generated (%s); first after %.1f ms, then %.0f "
      "tokens/s\n",
      usage.prompt_tokens(), usage.generated_tokens(), ReasonName(answer.last),
      absl::ToDoubleMilliseconds(first), speed);
}

absl::Status Generate(const GenerateOptions& options, Console& console) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  const Client client(options.client);
  const auto stub = v1::InferenceService::NewStub(client.channel());
  const v1::GenerateRequest request = MakeRequest(options, console);

  OpenCalls::Call call(&calls, client);
  const bool stream = options.output == OutputFormat::kTable;
  const absl::Time start = absl::Now();
  absl::Time first = absl::InfinitePast();
  Answer answer;
  v1::GenerateResponse response;
  const auto reader = stub->Generate(call.context(), request);
  while (reader->Read(&response)) {
    if (first == absl::InfinitePast()) first = absl::Now();
    if (stream) {
      console.out << (console.out_is_terminal
                          ? Printable(response.text(), /*keep_lines=*/true)
                          : response.text())
                  << std::flush;
    }
    answer.text += response.text();
    answer.tokens.insert(answer.tokens.end(), response.tokens().begin(),
                         response.tokens().end());
    answer.last.Swap(&response);
  }
  const grpc::Status status = reader->Finish();
  if (stream && !answer.text.empty()) console.out << "\n";
  if (!status.ok()) return client.Check(status);
  if (!stream) {
    PrintAnswer(options, answer, console);
    return absl::OkStatus();
  }
  if (options.logprobs) PrintLogprobs(answer, console);
  PrintFooter(answer, first - start, absl::Now() - start, console);
  return absl::OkStatus();
}

}  // namespace

Command GenerateCommand(CLI::App& root) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App& app = AddCommand(root, "generate",
                             "continue a prompt; the text streams to stdout");
  AddPromptFlags(app, options.get());
  AddSamplingFlags(app, options.get());
  AddClientFlags(app, &options->client);
  app.footer(Examples({
      {"greedy, to the end of the text or 128 tokens",
       "headcount generate 'Dear list,'"},
      {"drawn, the same again with the same seed",
       "headcount generate -p 'Dear list,' --temperature 0.8 --seed 7"},
      {"a prompt from a file, one line of answer",
       "headcount generate - --stop $'\\n' < prompt.txt"},
      {"one of two answers",
       "headcount generate 'Is 7 prime? Answer:' --choice "
       "' yes' --choice ' no'"},
      {"token ids and log-probabilities for a script",
       "headcount generate 'Dear list,' --logprobs --output json"},
  }));
  return {.app = &app, .run = [options](Console& console) {
            return Generate(*options, console);
          }};
}

}  // namespace headcount
