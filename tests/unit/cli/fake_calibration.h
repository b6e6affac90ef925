// A server whose heads are worth what arithmetic says, on a real port.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "headcount/v1/calibration.grpc.pb.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {

// Serves two models of 2 layers, each of 2 groups of 2 query heads, 100 bytes a
// token and group. Groups are worth 0.4, 0.01, 0 and 0.2 nats; a label is lost
// where more than 0.3 nats are.
class FakeCalibration final : public v1::CalibrationService::Service,
                              public v1::InferenceService::Service,
                              public v1::ModelService::Service {
 public:
  FakeCalibration() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(
        static_cast<v1::CalibrationService::Service*>(this));
    builder.RegisterService(static_cast<v1::InferenceService::Service*>(this));
    builder.RegisterService(static_cast<v1::ModelService::Service*>(this));
    server_ = builder.BuildAndStart();
    CHECK(server_ != nullptr && port != 0);
    address = absl::StrCat("127.0.0.1:", port);
  }
  ~FakeCalibration() override { server_->Shutdown(); }

  std::string address;
  int64_t examples_left = 1 << 20;  // then it is gone
  int64_t examples_asked = 0;
  std::vector<int64_t> calls;  // of ScoreGates: examples times settings
  v1::ScoreGatesRequest last_request;
  std::set<std::string> salts;  // of Classify

 private:
  static double Kl(const v1::HeadGates& gates) {
    const std::vector<double> worth = {0.4, 0.01, 0.0, 0.2};
    double kl = 0;
    for (int layer = 0; layer < 2; ++layer) {
      const auto& heads = gates.layers(layer).query_heads();
      for (int head = 0; head < heads.size(); ++head) {
        kl += heads[head] == 0
                  ? worth[static_cast<size_t>(2 * layer + head / 2)] / 2
                  : 0;
      }
    }
    return kl;
  }

  grpc::Status GetModel(grpc::ServerContext*,
                        const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    v1::Model* model = response->mutable_model();
    model->set_name(request->name().empty() ? "mail" : request->name());
    model->set_architecture("llama");
    model->set_num_layers(2);
    model->set_head_dim(32);
    model->set_kv_bytes_per_token(model->name() == "half" ? 200 : 400);
    model->add_labels("spam");
    model->add_labels("ham");
    for (int l = 0; l < 2; ++l) {
      v1::LayerHeads* layer = model->add_layers();
      layer->set_layer(l);
      layer->set_query_heads_unpruned(4);
      layer->set_kv_heads_unpruned(2);
      for (int head = 0; head < 4; ++head) layer->add_query_heads(head);
      for (int kv = 0; kv < 2; ++kv) {
        v1::KvHead* head = layer->add_kv_heads();
        head->set_index(kv);
        head->add_query_heads(2 * kv);
        head->add_query_heads(2 * kv + 1);
        head->set_bytes_per_token(100);
      }
    }
    return grpc::Status::OK;
  }

  grpc::Status ScoreGates(
      grpc::ServerContext*, const v1::ScoreGatesRequest* request,
      grpc::ServerWriter<v1::ScoreGatesResponse>* writer) override {
    last_request = *request;
    calls.push_back(int64_t{request->examples_size()} * request->gates_size());
    for (int e = 0; e < request->examples_size(); ++e) {
      if (examples_left == 0) {
        return {grpc::StatusCode::UNAVAILABLE, "pulled out"};
      }
      --examples_left;
      ++examples_asked;
      const v1::CalibrationExample& example = request->examples(e);
      const bool spam =
          example.classify_text().find("win") != std::string::npos;
      v1::ScoreGatesResponse response;
      response.set_example(e);
      response.set_places(example.has_classify_text() ? 1 : 4);
      const auto fill = [&](double kl, v1::GateScore* score) {
        score->set_kl(kl);
        score->set_expected_logprob(-4 - 4 * kl);
        if (!example.has_classify_text()) return;
        score->set_label(spam != (kl > 0.3) ? "spam" : "ham");
      };
      fill(0, response.mutable_dense());
      for (const v1::HeadGates& gates : request->gates()) {
        fill(Kl(gates), response.add_scores());
      }
      writer->Write(response);
    }
    return grpc::Status::OK;
  }

  // "worse" calls everything spam.
  grpc::Status Classify(grpc::ServerContext*,
                        const v1::ClassifyRequest* request,
                        v1::ClassifyResponse* response) override {
    salts.insert(request->cache_salt());
    for (const std::string& input : request->inputs()) {
      const bool spam =
          request->model() == "worse" || input.find("win") != std::string::npos;
      v1::Classification* result = response->add_results();
      result->set_label(spam ? "spam" : "ham");
      for (const bool likeliest : {true, false}) {
        v1::LabelProbability* label = result->add_labels();
        label->set_label(spam == likeliest ? "spam" : "ham");
        label->set_probability(likeliest ? 0.75f : 0.25f);
      }
    }
    return grpc::Status::OK;
  }

  // Each token of a target costs a nat, whoever is asked.
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRequest*,
                     v1::ScoreResponse* response) override {
    response->set_mean_nll(1);
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> server_;
};

}  // namespace headcount
