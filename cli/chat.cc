#include "cli/chat.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/number_flags.h"
#include "cli/open_calls.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.grpc.pb.h"
#include "server/limits.h"

namespace headcount {
namespace {

struct ChatOptions {
  ClientOptions client;
  std::string model;
  std::string system;
  std::optional<int32_t> max_tokens;
  v1::SamplingParams sampling;
};

void AddSamplingFlags(CLI::App& app, ChatOptions* options) {
  v1::SamplingParams* const sampling = &options->sampling;
  AddNumber(app, "--max-tokens", &options->max_tokens, {.least = 1},
            "tokens of an answer at most; what is left of the context unless "
            "set")
      ->group("Sampling");
  AddNumber<float>(
      app, "--temperature",
      [sampling](float value) { sampling->set_temperature(value); },
      {0, kMaxTemperature},
      "0, which is greedy, unless set; 1 draws from the model's distribution")
      ->group("Sampling");
  AddNumber<int32_t>(
      app, "--top-k", [sampling](int32_t value) { sampling->set_top_k(value); },
      {.least = 0}, "draw from the N likeliest tokens only")
      ->group("Sampling");
  AddNumber<float>(
      app, "--top-p", [sampling](float value) { sampling->set_top_p(value); },
      {0, 1}, "draw from the smallest set of tokens that has this probability")
      ->group("Sampling");
  AddNumber<float>(
      app, "--min-p", [sampling](float value) { sampling->set_min_p(value); },
      {0, 1}, "draw from tokens at least this likely relative to the likeliest")
      ->group("Sampling");
  AddNumber<uint64_t>(
      app, "--seed", [sampling](uint64_t value) { sampling->set_seed(value); },
      {}, "same seed, same answers")
      ->group("Sampling");
}

constexpr char kHelp[] =
    "/reset         forget what was said\n"
    "/system TEXT   begin anew, and TEXT sets the scene; without TEXT, "
    "nothing\n"
    "/exit          leave; so does Ctrl-D\n"
    "/help          this\n"
    "//text         says '/text'\n"
    "Ctrl-C stops an answer; pressed again, or where you type, it leaves.\n";

// One conversation with one model.
class Chat {
 public:
  Chat(const ChatOptions& options, Console& console)
      : options_(options), console_(console), system_(options.system) {
    // gRPC's threads shall not see Ctrl-C, nor those that they start.
    const Interrupt masked([] {});
    client_.emplace(options.client);
    Reset();
  }

  absl::Status Run();

 private:
  void Reset();
  // Says who answers.
  absl::Status Greet();
  // What begins with a single slash; false: leave.
  bool Obey(const std::string& line);
  // The user's turn and the answer to it. If there is none, nothing was said.
  absl::Status Say(const std::string& text);
  // Streams the answer; `answer` is what came of it, also after an error.
  grpc::Status Ask(std::string* answer);
  void AddMessage(v1::Message::Role role, const std::string& content);

  const ChatOptions& options_;
  Console& console_;
  std::string system_;
  std::optional<Client> client_;
  v1::Conversation conversation_;
};

void Chat::Reset() {
  conversation_.Clear();
  if (!system_.empty()) AddMessage(v1::Message::ROLE_SYSTEM, system_);
}

void Chat::AddMessage(v1::Message::Role role, const std::string& content) {
  v1::Message* message = conversation_.add_messages();
  message->set_role(role);
  message->set_content(content);
}

absl::Status Chat::Greet() {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  OpenCalls::Call call(&calls, *client_);
  v1::GetModelRequest request;
  request.set_name(options_.model);
  v1::GetModelResponse response;
  const grpc::Status status =
      v1::ModelService::NewStub(client_->channel())
          ->GetModel(call.context(), request, &response);
  if (!status.ok()) return client_->Check(status);
  console_.err << "This is " << response.model().name()
               << "; /help explains, Ctrl-D leaves.\n";
  return absl::OkStatus();
}

bool Chat::Obey(const std::string& line) {
  const size_t space = line.find(' ');
  const std::string command = line.substr(0, space);
  if (command == "/exit") return false;
  if (command == "/reset") {
    Reset();
  } else if (command == "/system") {
    const size_t text = line.find_first_not_of(' ', command.size());
    system_ = text == line.npos ? "" : line.substr(text);
    Reset();
  } else if (command == "/help") {
    console_.err << kHelp;
  } else {
    console_.err << "There is no '" << Crop(command, 40)
                 << "'. /help names what there is; //text says '/text'.\n";
  }
  return true;
}

grpc::Status Chat::Ask(std::string* answer) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  OpenCalls::Call call(&calls, *client_);
  v1::GenerateRequest request;
  request.set_model(options_.model);
  *request.mutable_conversation() = conversation_;
  *request.mutable_sampling() = options_.sampling;
  if (options_.max_tokens) request.set_max_tokens(*options_.max_tokens);

  const auto stub = v1::InferenceService::NewStub(client_->channel());
  const auto reader = stub->Generate(call.context(), request);
  v1::GenerateResponse last;
  for (v1::GenerateResponse response; reader->Read(&response);) {
    console_.out << (console_.out_is_terminal
                         ? Printable(response.text(), /*keep_lines=*/true)
                         : response.text())
                 << std::flush;
    *answer += response.text();
    last.Swap(&response);
  }
  const grpc::Status status = reader->Finish();
  if (status.ok() || !answer->empty()) console_.out << std::endl;
  if (last.finish_reason() == v1::FINISH_REASON_LENGTH) {
    console_.err << "(cut off: " << last.usage().generated_tokens()
                 << " tokens)\n";
  }
  return status;
}

absl::Status Chat::Say(const std::string& text) {
  AddMessage(v1::Message::ROLE_USER, text);
  std::string answer;
  const grpc::Status status = Ask(&answer);
  const bool cancelled = status.error_code() == grpc::StatusCode::CANCELLED;
  if (cancelled) console_.err << "(stopped)\n";
  if (status.ok() || (cancelled && !answer.empty())) {
    AddMessage(v1::Message::ROLE_ASSISTANT, answer);
    return absl::OkStatus();
  }
  conversation_.mutable_messages()->RemoveLast();
  return cancelled ? absl::OkStatus() : client_->Check(status);
}

absl::Status Chat::Run() {
  if (console_.in_is_terminal) {
    const absl::Status status = Greet();
    if (!status.ok()) return status;
  }
  std::string line;
  while (true) {
    if (console_.in_is_terminal) console_.err << "> " << std::flush;
    if (!std::getline(console_.in, line)) break;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    if (line.starts_with("//")) {
      line.erase(0, 1);
    } else if (line.starts_with('/')) {
      if (!Obey(line)) return absl::OkStatus();
      continue;
    }
    const absl::Status status = Say(line);
    if (status.ok()) continue;
    // At a terminal the next line may do better.
    if (!console_.in_is_terminal) return status;
    PrintError(console_, "headcount chat", std::string(status.message()));
  }
  if (console_.in_is_terminal) console_.err << "\n";
  return absl::OkStatus();
}

}  // namespace

Command ChatCommand(CLI::App& root) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App& app =
      AddCommand(root, "chat", "talk with a model that has a chat template");
  app.add_option("-m,--model,MODEL", options->model,
                 "which model to ask; not needed if the server has just one")
      ->type_name("NAME");
  app.add_option("--system", options->system,
                 "what sets the scene, before the first message")
      ->type_name("TEXT");
  AddSamplingFlags(app, options.get());
  AddClientFlags(app, &options->client);
  app.footer(Examples({
      {"talk; /help explains, Ctrl-C stops an answer, Ctrl-D leaves",
       "headcount chat"},
      {"with a scene, and some chance",
       "headcount chat --system 'Answer in one line.' --temperature 0.7"},
      {"one turn for each line of a file; answers go to stdout",
       "headcount chat smollm2-135m < questions.txt"},
      {"which models can", "headcount show smollm2-135m"},
  }));
  return {.app = &app, .run = [options](Console& console) {
            return Chat(*options, console).Run();
          }};
}

}  // namespace headcount
