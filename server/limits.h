// Every limit on what a client or an operator may ask: one constant each.
// docs/limits.md is LimitsMarkdown(); a test compares them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace headcount {

// Transport.
inline constexpr int kMaxMessageBytes = 4 << 20;
inline constexpr int kMaxMetadataBytes = 8 << 10;
inline constexpr int kMaxStreamsPerConnection = 100;
inline constexpr int64_t kGrpcMemoryBytes = 64 << 20;
inline constexpr absl::Duration kKeepaliveTime = absl::Seconds(60);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(20);
inline constexpr absl::Duration kMinPingInterval = absl::Seconds(10);

// A call.
inline constexpr absl::Duration kMaxDeadline = absl::Minutes(10);
inline constexpr int kMaxRequestIdBytes = 64;
inline constexpr int kMaxModelNameBytes = 64;
inline constexpr int kMaxTenantBytes = 64;
inline constexpr int kMaxCacheSaltBytes = 64;
inline constexpr int kMaxPriority = 100;  // also minus

// Prompts. Text is refused before it is tokenised when no tokenizer could
// bring it under the context.
inline constexpr int kMaxPromptBytesPerToken = 8;
inline constexpr int kMaxConversationMessages = 1024;
inline constexpr int kMaxTokenizeBytes = 1 << 20;
inline constexpr int kMaxDetokenizeIds = 1 << 16;
inline constexpr int kMaxClassifyInputs = 256;
// Of all inputs, each with its labels.
inline constexpr int64_t kMaxClassifyTokens = 4 << 20;

// Generation.
inline constexpr float kMaxTemperature = 100.0f;
inline constexpr int kMaxStopStrings = 8;
inline constexpr int kMaxStopBytes = 64;
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr int kMaxTopLogprobs = 20;
inline constexpr float kMinRepetitionPenalty = 0.01f;
inline constexpr float kMaxRepetitionPenalty = 100.0f;
inline constexpr float kMaxPenalty = 2.0f;  // presence, frequency; also minus
inline constexpr int kMaxLogitBiases = 300;
inline constexpr float kMaxLogitBias = 100.0f;  // minus that bans the token
inline constexpr int kMaxChoices = 256;
inline constexpr int kMaxChoiceBytes = 1024;
inline constexpr int64_t kMaxChoiceTokens = 16 << 10;  // together

// Scoring.
inline constexpr int kMaxScoreCandidates = 256;
inline constexpr int64_t kMaxPlannedPoolBytes = int64_t{1} << 50;

// Calibration.
inline constexpr int kMaxCalibrationCalls = 4;  // at once
inline constexpr int kMaxCalibrationExamples = 4096;
inline constexpr int64_t kMaxCalibrationTokens = 4 << 20;  // of all examples
inline constexpr int kMaxGateSettings = 1024;
// Of one call that the engine has at once, and as many examples begun.
inline constexpr size_t kMaxCalibrationRequests = 64;
// Gram matrices of all layers, in the server.
inline constexpr int64_t kMaxGramBytes = int64_t{4} << 30;
// Log-probabilities of the whole vocabulary that a call holds at once.
inline constexpr int64_t kMaxCalibrationRowBytes = 256 << 20;
// Inputs of all layers that a call holds at once. A text with more is computed
// from the first layer on under every setting.
inline constexpr int64_t kMaxCalibrationInputBytes = 256 << 20;

// A step that runs this long hangs, as far as readiness goes.
inline constexpr absl::Duration kStepHangs = absl::Minutes(2);

// A stream whose reader is slow.
inline constexpr int64_t kOutboxBytes = 256 << 10;
inline constexpr int64_t kOutboxHardBytes = 1 << 20;
inline constexpr absl::Duration kOutboxFullTime = absl::Seconds(10);
inline constexpr absl::Duration kDeliveryTime = absl::Seconds(30);

// When to come back.
inline constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(50);
inline constexpr absl::Duration kMaxRetryDelay = absl::Seconds(30);

// Configuration.
inline constexpr int64_t kMaxYamlBytes = 1 << 20;
inline constexpr int kMaxYamlDepth = 16;
inline constexpr int kMaxYamlNodes = 100000;
inline constexpr int kMaxStepTokens = 65536;
inline constexpr int kMaxThreads = 1024;
inline constexpr int kMaxQueuedRequests = 1000000;
inline constexpr double kMaxWatermark = 0.5;
inline constexpr double kMinShare = 0.001;
inline constexpr double kMaxShare = 1000;
inline constexpr int kMaxFolderModels = 1000;
inline constexpr absl::Duration kMaxDrainGrace = absl::Minutes(10);
inline constexpr absl::Duration kMaxDrainDeadline = absl::Hours(1);
inline constexpr int kMaxLabels = 256;
inline constexpr int kMaxLabelBytes = 256;
inline constexpr int kMaxTemplateBytes = 64 << 10;

// docs/limits.md.
std::string LimitsMarkdown();

}  // namespace headcount
