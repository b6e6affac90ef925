#include "cli/demo.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/human.h"
#include "cli/client.h"
#include "cli/demo_mails.h"
#include "cli/fresh_salt.h"
#include "cli/statistics.h"
#include "cli/table.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.grpc.pb.h"
#include "server/config.h"
#include "server/server.h"

namespace headcount {
namespace {

// Special tokens of models/mailroom: <|bos|>{body}<|subject|> asks for a
// subject line.
constexpr int32_t kBosId = 0;
constexpr int32_t kSubjectId = 3;
constexpr int kSubjectTokens = 32;
constexpr size_t kConcurrentStreams = 8;

// A model under its name, and everything that is found out about it.
struct Candidate {
  std::string name;
  std::vector<v1::Classification> labels;  // [mail]
  std::vector<double> first_ms;            // [mail] time to the first token
  double tokens_per_second = 0;            // after the first
  v1::Model busy;  // GetModel while kConcurrentStreams streams run
};

struct Asker {
  const Client& client;
  std::unique_ptr<v1::InferenceService::Stub> inference;
  std::unique_ptr<v1::ModelService::Stub> models;
};

config::v1::ServerConfig DemoConfig() {
  config::v1::ServerConfig config = DefaultServerConfig();
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen("127.0.0.1:0");
  config.set_kv_pool("64MiB");
  config.mutable_drain()->set_grace("0s");
  return config;
}

absl::StatusOr<std::unique_ptr<Server>> StartServer(
    const std::string& model_path, const std::vector<Candidate>& candidates) {
  config::v1::ServerConfig config = DemoConfig();
  absl::StatusOr<config::v1::ModelSpec> spec = ReadModelSpec(model_path);
  if (!spec.ok()) return spec.status();
  spec->set_name(candidates[0].name);
  *config.add_models() = *spec;
  spec->set_name(candidates[1].name);
  spec->mutable_heads()->set_mask_file(model_path + "/heads_half.json");
  *config.add_models() = *std::move(spec);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(config);
  if (!server.ok()) return server.status();
  if (!(*server)->failed_models().empty()) {
    return (*server)->failed_models().front().status;
  }
  if (absl::Status status = (*server)->Start(); !status.ok()) return status;
  return server;
}

absl::Status Classify(const Asker& asker, const std::vector<DemoMail>& mails,
                      Candidate* candidate) {
  v1::ClassifyRequest request;
  request.set_model(candidate->name);
  for (const DemoMail& mail : mails) request.add_inputs(mail.body);
  grpc::ClientContext context;
  asker.client.Prepare(&context);
  v1::ClassifyResponse response;
  absl::Status status = asker.client.Check(
      asker.inference->Classify(&context, request, &response));
  if (!status.ok()) return status;
  candidate->labels.assign(response.results().begin(),
                           response.results().end());
  return absl::OkStatus();
}

absl::StatusOr<v1::GenerateRequest> SubjectRequest(const Asker& asker,
                                                   const std::string& model,
                                                   const DemoMail& mail) {
  v1::TokenizeRequest tokenize;
  tokenize.set_model(model);
  tokenize.set_text(mail.body);
  grpc::ClientContext context;
  asker.client.Prepare(&context);
  v1::TokenizeResponse body;
  absl::Status status =
      asker.client.Check(asker.inference->Tokenize(&context, tokenize, &body));
  if (!status.ok()) return status;
  v1::GenerateRequest request;
  request.set_model(model);
  request.mutable_tokens()->add_ids(kBosId);
  request.mutable_tokens()->mutable_ids()->MergeFrom(body.ids());
  request.mutable_tokens()->add_ids(kSubjectId);
  request.set_max_tokens(kSubjectTokens);
  return request;
}

// A subject line as it comes.
absl::Status StreamSubject(const Asker& asker, const std::string& model,
                           const DemoMail& mail, Console& console) {
  absl::StatusOr<v1::GenerateRequest> request =
      SubjectRequest(asker, model, mail);
  if (!request.ok()) return request.status();
  console.out << "A subject line for mail 1, streamed from " << model
              << ":\n  ";
  grpc::ClientContext context;
  asker.client.Prepare(&context);
  const auto reader = asker.inference->Generate(&context, *request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    console.out << Printable(response.text()) << std::flush;
  }
  console.out << "\n";
  return asker.client.Check(reader->Finish());
}

// Subject lines of all mails, one after the other, all of one length.
absl::Status MeasureSpeed(const Asker& asker,
                          const std::vector<DemoMail>& mails,
                          Candidate* candidate) {
  FreshSalt salt;
  int64_t tokens = 0;
  absl::Duration decoding;
  for (const DemoMail& mail : mails) {
    absl::StatusOr<v1::GenerateRequest> request =
        SubjectRequest(asker, candidate->name, mail);
    if (!request.ok()) return request.status();
    request->set_ignore_eos(true);
    // The same mails were classified before.
    request->set_cache_salt(salt.Next());
    grpc::ClientContext context;
    asker.client.Prepare(&context);
    const absl::Time start = absl::Now();
    absl::Time first = absl::InfinitePast();
    const auto reader = asker.inference->Generate(&context, *request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
      if (response.tokens().empty()) continue;
      if (first == absl::InfinitePast()) {
        first = absl::Now();
      } else {
        tokens += response.tokens_size();
      }
    }
    absl::Status status = asker.client.Check(reader->Finish());
    if (!status.ok()) return status;
    candidate->first_ms.push_back(absl::ToDoubleMilliseconds(first - start));
    decoding += absl::Now() - first;
  }
  candidate->tokens_per_second =
      static_cast<double>(tokens) / absl::ToDoubleSeconds(decoding);
  return absl::OkStatus();
}

// Starts streams, waits for the first token of each, and asks for the model
// while all of them hold their KV cache. Leaving cancels them.
absl::Status MeasureMemory(const Asker& asker,
                           const std::vector<DemoMail>& mails,
                           Candidate* candidate) {
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
    ~Stream() {
      if (reader == nullptr) return;
      context.TryCancel();
      (void)reader->Finish();
    }
  };
  std::vector<std::unique_ptr<Stream>> streams;
  for (size_t i = 0; i < std::min(kConcurrentStreams, mails.size()); ++i) {
    absl::StatusOr<v1::GenerateRequest> request =
        SubjectRequest(asker, candidate->name, mails[i]);
    if (!request.ok()) return request.status();
    request->set_ignore_eos(true);
    request->set_max_tokens(4096);  // still running when we ask
    auto stream = std::make_unique<Stream>();
    asker.client.Prepare(&stream->context);
    stream->reader = asker.inference->Generate(&stream->context, *request);
    streams.push_back(std::move(stream));
  }
  for (const auto& stream : streams) {
    v1::GenerateResponse response;
    if (!stream->reader->Read(&response)) {
      stream->context.TryCancel();
      return asker.client.Check(stream->reader->Finish());
    }
  }
  grpc::ClientContext context;
  asker.client.Prepare(&context);
  v1::GetModelRequest request;
  request.set_name(candidate->name);
  v1::GetModelResponse response;
  absl::Status status =
      asker.client.Check(asker.models->GetModel(&context, request, &response));
  candidate->busy = response.model();
  return status;
}

std::string Guess(const v1::Classification& result) {
  const float probability =
      result.labels().empty() ? 0 : result.labels(0).probability();
  return absl::StrFormat("%-4s %.4f", result.label(), probability);
}

void PrintMails(const std::vector<DemoMail>& mails,
                const std::vector<Candidate>& candidates, Console& console) {
  Table table({{"", Align::kRight},
               {"SUBJECT"},
               {"TRUTH"},
               {"ALL HEADS"},
               {"HALF PRUNED"}});
  for (size_t i = 0; i < mails.size(); ++i) {
    table.AddRow({absl::StrCat(i + 1), Crop(mails[i].subject, 40),
                  mails[i].label, Guess(candidates[0].labels[i]),
                  Guess(candidates[1].labels[i])});
  }
  console.out << table.Render() << "\n";
}

int Right(const std::vector<DemoMail>& mails, const Candidate& candidate) {
  int right = 0;
  for (size_t i = 0; i < mails.size(); ++i) {
    right += candidate.labels[i].label() == mails[i].label ? 1 : 0;
  }
  return right;
}

int Agreeing(const Candidate& a, const Candidate& b) {
  int agreeing = 0;
  for (size_t i = 0; i < a.labels.size(); ++i) {
    agreeing += a.labels[i].label() == b.labels[i].label() ? 1 : 0;
  }
  return agreeing;
}

void PrintSummary(const std::vector<DemoMail>& mails,
                  const std::vector<Candidate>& candidates, Console& console) {
  Table table(
      {{""}, {"ALL HEADS", Align::kRight}, {"HALF PRUNED", Align::kRight}});
  const auto add = [&](const std::string& what, auto value) {
    table.AddRow({what, value(candidates[0]), value(candidates[1])});
  };
  add("right", [&](const Candidate& c) {
    return absl::StrCat(Right(mails, c), " of ", mails.size());
  });
  add("time to first token, median", [](const Candidate& c) {
    return absl::StrFormat("%.1f ms", Percentile(c.first_ms, 50));
  });
  add("tokens per second, one stream", [](const Candidate& c) {
    return absl::StrFormat("%.0f", c.tokens_per_second);
  });
  add("KV heads", [](const Candidate& c) {
    return absl::StrCat(c.busy.kv_heads(), " of ", c.busy.kv_heads_unpruned());
  });
  add("KV bytes per token", [](const Candidate& c) {
    return FormatCount(c.busy.kv_bytes_per_token());
  });
  add("KV bytes in use",
      [](const Candidate& c) { return FormatCount(c.busy.kv_bytes_used()); });
  add("  by streams", [](const Candidate& c) {
    return absl::StrCat(c.busy.requests_running());
  });
  add("weight bytes",
      [](const Candidate& c) { return FormatCount(c.busy.weight_bytes()); });
  console.out << table.Render() << "\nThe two agree on "
              << Agreeing(candidates[0], candidates[1]) << " of "
              << mails.size() << " mails.\n\n";
}

absl::Status Ask(const Server& server, const std::vector<DemoMail>& mails,
                 std::vector<Candidate> candidates, Console& console) {
  const Client client(
      {.address = server.grpc_address(), .timeout = absl::Minutes(1)});
  const Asker asker{
      .client = client,
      .inference = v1::InferenceService::NewStub(client.channel()),
      .models = v1::ModelService::NewStub(client.channel())};
  absl::Status status;
  for (Candidate& candidate : candidates) {
    status.Update(Classify(asker, mails, &candidate));
  }
  if (!status.ok()) return status;
  PrintMails(mails, candidates, console);
  status.Update(StreamSubject(asker, candidates[0].name, mails[0], console));
  console.out << "\n";
  for (Candidate& candidate : candidates) {
    status.Update(MeasureSpeed(asker, mails, &candidate));
    status.Update(MeasureMemory(asker, mails, &candidate));
  }
  if (!status.ok()) return status;
  PrintSummary(mails, candidates, console);
  return absl::OkStatus();
}

absl::Status Demo(const std::string& model_path, Console& console) {
  const absl::StatusOr<std::vector<DemoMail>> mails =
      ReadMails(model_path + "/examples.jsonl");
  if (!mails.ok()) return mails.status();
  if (mails->empty()) return absl::InvalidArgumentError("there are no mails");
  std::vector<Candidate> candidates(2);
  candidates[0].name = "mailroom";
  candidates[1].name = "mailroom-half";
  const absl::StatusOr<std::unique_ptr<Server>> server =
      StartServer(model_path, candidates);
  if (!server.ok()) return server.status();
  console.out << "Serving " << candidates[0].name << " and "
              << candidates[1].name << " on " << (*server)->grpc_address()
              << ", metrics on http://" << (*server)->metrics_address()
              << "/metrics\n\n";
  const absl::Status status =
      Ask(**server, *mails, std::move(candidates), console);
  (*server)->Drain();
  if (status.ok()) console.out << "Stopped.\n";
  return status;
}

}  // namespace

Command DemoCommand(CLI::App& root) {
  auto model_path = std::make_shared<std::string>("models/mailroom");
  CLI::App& app = AddCommand(
      root, "demo", "serve mailroom twice, dense and half pruned, and compare");
  app.group("");
  app.add_option("MODEL", *model_path, "folder of mailroom");
  return {.app = &app, .run = [model_path](Console& console) {
            return Demo(*model_path, console);
          }};
}

}  // namespace headcount
