#include "server/limits.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/human.h"

namespace headcount {
namespace {

struct Row {
  std::string what;
  std::string limit;
  std::string beyond;  // what happens beyond it
};

struct Section {
  std::string title;
  std::vector<Row> rows;
};

constexpr char kInvalid[] = "INVALID_ARGUMENT naming the field";
constexpr char kExhausted[] = "RESOURCE_EXHAUSTED";
constexpr char kRefusedFile[] = "the file is refused";

Section Transport() {
  return {"Transport",
          {{"One message", FormatByteSize(kMaxMessageBytes), kExhausted},
           {"Metadata of a call", FormatByteSize(kMaxMetadataBytes),
            "the call is refused"},
           {"Compressed messages", "none", "UNIMPLEMENTED"},
           {"Calls at once on a connection",
            FormatCount(kMaxStreamsPerConnection), "they wait in the client"},
           {"Memory for calls", FormatByteSize(kGrpcMemoryBytes),
            "calls are reset"},
           {"Silence on a connection", absl::FormatDuration(kKeepaliveTime),
            absl::StrCat("a ping; closed after ",
                         absl::FormatDuration(kKeepaliveTimeout),
                         " without an answer")},
           {"Time between a client's pings",
            absl::StrCat("at least ", absl::FormatDuration(kMinPingInterval)),
            "the connection is closed"}}};
}

Section Calls() {
  return {
      "Calls",
      {{"Deadline; also that of a call without one",
        absl::FormatDuration(kMaxDeadline), "DEADLINE_EXCEEDED"},
       {"`x-request-id`", absl::StrCat(kMaxRequestIdBytes, " characters"),
        "the server makes its own"},
       {"`x-headcount-tenant`", absl::StrCat(kMaxTenantBytes, " characters"),
        kInvalid},
       {"`priority`", absl::StrCat(-kMaxPriority, " to ", kMaxPriority),
        kInvalid},
       {"`cache_salt`", absl::StrCat(kMaxCacheSaltBytes, " bytes"), kInvalid},
       {"Prompt text",
        absl::StrCat(kMaxPromptBytesPerToken, " bytes x context"), kInvalid},
       {"Messages of a conversation", FormatCount(kMaxConversationMessages),
        kInvalid},
       {"Prompt and answer", "the model's `limits.max_context`", kInvalid},
       {"Text of Tokenize", FormatByteSize(kMaxTokenizeBytes), kInvalid},
       {"Ids of Detokenize", FormatCount(kMaxDetokenizeIds), kInvalid},
       {"Inputs of Classify", FormatCount(kMaxClassifyInputs), kInvalid},
       {"Tokens of Classify, over inputs and the labels of each",
        FormatCount(kMaxClassifyTokens), kInvalid},
       {"Temperature", absl::StrCat(kMaxTemperature), kInvalid},
       {"`repetition_penalty`",
        absl::StrCat(kMinRepetitionPenalty, " to ", kMaxRepetitionPenalty),
        kInvalid},
       {"`presence_penalty`, `frequency_penalty`",
        absl::StrCat(-kMaxPenalty, " to ", kMaxPenalty), kInvalid},
       {"Entries of `logit_bias`", FormatCount(kMaxLogitBiases), kInvalid},
       {"One bias", absl::StrCat(-kMaxLogitBias, " to ", kMaxLogitBias),
        kInvalid},
       {"`choices`",
        absl::StrCat(kMaxChoices, " of ", FormatCount(kMaxChoiceBytes),
                     " bytes"),
        kInvalid},
       {"Tokens of `choices`", FormatCount(kMaxChoiceTokens), kInvalid},
       {"Candidates of Score", FormatCount(kMaxScoreCandidates), kInvalid},
       {"Pool of PlanCapacity", FormatByteSize(kMaxPlannedPoolBytes), kInvalid},
       {"Stop strings", FormatCount(kMaxStopStrings), kInvalid},
       {"One stop string", absl::StrCat(kMaxStopBytes, " bytes"), kInvalid},
       {"Stop token ids", FormatCount(kMaxStopTokenIds), kInvalid},
       {"`top_logprobs`", FormatCount(kMaxTopLogprobs), kInvalid},
       {"Waiting requests, their tokens and memory",
        "`queue` of the configuration", "RESOURCE_EXHAUSTED with RetryInfo"},
       {"Delay in RetryInfo",
        absl::StrCat(absl::FormatDuration(kMinRetryDelay), " to ",
                     absl::FormatDuration(kMaxRetryDelay), ", +-20 %"),
        "clamped"}}};
}

Section Calibration() {
  return {
      "Calibration (`serve --calibration`)",
      {{"Calls at once", FormatCount(kMaxCalibrationCalls),
        "RESOURCE_EXHAUSTED with RetryInfo"},
       {"Examples", FormatCount(kMaxCalibrationExamples), kInvalid},
       {"Tokens of all examples", FormatCount(kMaxCalibrationTokens), kInvalid},
       {"`gates`", FormatCount(kMaxGateSettings), kInvalid},
       {"Tokens of a target x vocabulary x 4 bytes",
        FormatByteSize(kMaxCalibrationRowBytes), kInvalid},
       {"What the layers read of a text: (layers + 1) x tokens x hidden x 4 "
        "bytes",
        FormatByteSize(kMaxCalibrationInputBytes),
        "it is computed from the first layer on under every setting"},
       {"The same of all texts that a call works on at once",
        FormatByteSize(kMaxCalibrationInputBytes), "the others follow"},
       {"Gram matrices of a model, 8 bytes an entry",
        FormatByteSize(kMaxGramBytes), kInvalid},
       {"Requests of a call that wait or run at once",
        FormatCount(kMaxCalibrationRequests), "the others follow"}}};
}

Section Device() {
  return {"The device",
          {{"A step of the engine", absl::FormatDuration(kStepHangs),
            "the server is not ready until the step ends, and says so in its "
            "log; `liveness` stays"},
           {"An error of the device that stays", "none",
            "running requests end with UNAVAILABLE and the error, others are "
            "refused, the server drains and exits with an error"}}};
}

Section SlowReaders() {
  return {
      "Slow readers",
      {{"Unread answer of a stream, for " +
            absl::FormatDuration(kOutboxFullTime),
        FormatByteSize(kOutboxBytes), "RESOURCE_EXHAUSTED, slow reader"},
       {"Unread answer of a stream, at any time",
        FormatByteSize(kOutboxHardBytes), "RESOURCE_EXHAUSTED, slow reader"},
       {"Time to read the rest when generation has ended",
        absl::FormatDuration(kDeliveryTime), "the stream is reset"}}};
}

Section Configuration() {
  return {
      "Configuration",
      {{"A YAML file", FormatByteSize(kMaxYamlBytes), kRefusedFile},
       {"Depth of YAML", FormatCount(kMaxYamlDepth), kRefusedFile},
       {"Values in a YAML file", FormatCount(kMaxYamlNodes), kRefusedFile},
       {"YAML anchors and aliases", "none", kRefusedFile},
       {"Model name", absl::StrCat(kMaxModelNameBytes, " characters"),
        kRefusedFile},
       {"`step_tokens`", FormatCount(kMaxStepTokens), kRefusedFile},
       {"`threads`", FormatCount(kMaxThreads), kRefusedFile},
       {"`queue.requests`", FormatCount(kMaxQueuedRequests), kRefusedFile},
       {"`watermark`", absl::StrCat(kMaxWatermark), kRefusedFile},
       {"`share`", absl::StrCat(kMinShare, " to ", kMaxShare), kRefusedFile},
       {"Models of `models_dir`", FormatCount(kMaxFolderModels),
        "the server does not start"},
       {"`drain.grace`", absl::FormatDuration(kMaxDrainGrace), kRefusedFile},
       {"`drain.deadline`", absl::FormatDuration(kMaxDrainDeadline),
        kRefusedFile},
       {"`classify.labels`",
        absl::StrCat(kMaxLabels, " of ", kMaxLabelBytes, " bytes"),
        kRefusedFile},
       {"`classify.template`", FormatByteSize(kMaxTemplateBytes),
        kRefusedFile}}};
}

}  // namespace

std::string LimitsMarkdown() {
  std::string text =
      "# Limits\n\n"
      "Made from `server/limits.h`; a test compares the two.\n";
  for (const Section& section : {Transport(), Calls(), Calibration(), Device(),
                                 SlowReaders(), Configuration()}) {
    absl::StrAppend(&text, "\n## ", section.title,
                    "\n\n| What | Limit | Beyond it |\n|---|---|---|\n");
    for (const Row& row : section.rows) {
      absl::StrAppend(&text, "| ", row.what, " | ", row.limit, " | ",
                      row.beyond, " |\n");
    }
  }
  return text;
}

}  // namespace headcount
