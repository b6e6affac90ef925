#include "cli/candidate_model.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/heads_json.h"
#include "cli/repair_file.h"
#include "cli/write_file.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

constexpr char kMaskFile[] = "heads.json";
constexpr char kTensorsFile[] = "repair.safetensors";

absl::Status UnloadModel(const std::string& name, const Client& client,
                         OpenCalls* calls) {
  v1::UnloadModelRequest request;
  request.set_name(name);
  v1::UnloadModelResponse response;
  OpenCalls::Call call(calls, client);
  return client.Check(v1::ModelService::NewStub(client.channel())
                          ->UnloadModel(call.context(), request, &response));
}

absl::Status LoadModel(const std::string& name, const Client& client,
                       OpenCalls* calls) {
  v1::LoadModelRequest request;
  request.set_name(name);
  v1::LoadModelResponse response;
  OpenCalls::Call call(calls, client);
  const auto stub = v1::ModelService::NewStub(client.channel());
  const auto stages = stub->LoadModel(call.context(), request);
  while (stages->Read(&response)) {
  }
  return client.Check(stages->Finish());
}

}  // namespace

absl::StatusOr<std::unique_ptr<CandidateModel>> CandidateModel::Create(
    config::v1::ModelSpec dense) {
  std::error_code error;
  std::string folder =
      (std::filesystem::temp_directory_path(error) / "headcount.XXXXXX")
          .string();
  if (error || mkdtemp(folder.data()) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no folder for the files of a candidate: ",
        error ? error.message() : std::generic_category().message(errno),
        "; set TMPDIR to one that can be written"));
  }
  dense.set_name(dense.name() == "candidate" ? "candidate-2" : "candidate");
  dense.set_preload("off");
  dense.mutable_kv_cache()->clear_quota();  // promised to the dense one
  dense.clear_heads();
  dense.mutable_heads()->set_mask_file(
      (std::filesystem::path(folder) / kMaskFile).string());
  return std::unique_ptr<CandidateModel>(
      new CandidateModel(std::move(dense), std::move(folder)));
}

CandidateModel::~CandidateModel() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

absl::Status CandidateModel::Serve(Json mask,
                                   const std::vector<LayerRepair>& repair,
                                   const Client& client, OpenCalls* calls) {
  // Before the file that it has mapped is replaced.
  if (loaded_) {
    absl::Status status = UnloadModel(spec_.name(), client, calls);
    if (!status.ok()) return status;
    loaded_ = false;
  }
  if (!repair.empty()) {
    AddRepair(kTensorsFile, &mask);
    absl::Status status = WriteRepair(
        (std::filesystem::path(folder_) / kTensorsFile).string(), repair);
    if (!status.ok()) return status;
  }
  absl::Status status = WriteFile(spec_.heads().mask_file(), mask.dump());
  if (!status.ok()) return status;
  status = LoadModel(spec_.name(), client, calls);
  loaded_ = status.ok();
  return status;
}

}  // namespace headcount
