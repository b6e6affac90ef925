// The methods that are counted and logged: a closed set, so that labels are.
#pragma once

#include <array>
#include <cstddef>

#include "absl/strings/string_view.h"

namespace headcount {

enum class RpcMethod {
  kGenerate,
  kScore,
  kClassify,
  kTokenize,
  kDetokenize,
  kListModels,
  kGetModel,
  kLoadModel,
  kUnloadModel,
  kGetPool,
  kPlanCapacity,
  kDrain,
  kScoreGates,
  kCollectHeadStatistics,
  kHealthCheck,
  kHealthList,
  kHealthWatch,
};

struct RpcMethodNames {
  absl::string_view service;
  absl::string_view method;
  absl::string_view type;  // as grpc_type of the metrics
};

inline constexpr absl::string_view kInferenceServiceName =
    "headcount.v1.InferenceService";
inline constexpr absl::string_view kModelServiceName =
    "headcount.v1.ModelService";
inline constexpr absl::string_view kCalibrationServiceName =
    "headcount.v1.CalibrationService";
inline constexpr absl::string_view kHealthServiceName = "grpc.health.v1.Health";

inline constexpr std::array<RpcMethodNames, 17> kRpcMethods = {{
    {kInferenceServiceName, "Generate", "server_stream"},
    {kInferenceServiceName, "Score", "unary"},
    {kInferenceServiceName, "Classify", "unary"},
    {kInferenceServiceName, "Tokenize", "unary"},
    {kInferenceServiceName, "Detokenize", "unary"},
    {kModelServiceName, "ListModels", "unary"},
    {kModelServiceName, "GetModel", "unary"},
    {kModelServiceName, "LoadModel", "server_stream"},
    {kModelServiceName, "UnloadModel", "unary"},
    {kModelServiceName, "GetPool", "unary"},
    {kModelServiceName, "PlanCapacity", "unary"},
    {kModelServiceName, "Drain", "unary"},
    {kCalibrationServiceName, "ScoreGates", "server_stream"},
    {kCalibrationServiceName, "CollectHeadStatistics", "server_stream"},
    {kHealthServiceName, "Check", "unary"},
    {kHealthServiceName, "List", "unary"},
    {kHealthServiceName, "Watch", "server_stream"},
}};

constexpr const RpcMethodNames& NamesOf(RpcMethod method) {
  return kRpcMethods[static_cast<size_t>(method)];
}

}  // namespace headcount
