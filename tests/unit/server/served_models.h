// Models for tests that need no weights.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "server/model_setup.h"

namespace headcount {

// The tokenizer of models/mailroom: <|bos|> is 0, "spam" and "ham" are single
// tokens.
inline std::shared_ptr<const Tokenizer> MailroomTokenizer() {
  absl::StatusOr<Tokenizer> tokenizer =
      Tokenizer::Load(HEADCOUNT_SOURCE_DIR "/models/mailroom");
  CHECK(tokenizer.ok()) << tokenizer.status();
  return std::make_shared<const Tokenizer>(*std::move(tokenizer));
}

// A model with a context of 32 tokens that has lost 3 of 12 heads.
inline ServedModel MakeServedModel(std::string name, int index,
                                   std::vector<std::string> labels = {}) {
  ServedModel model;
  model.name = name;
  model.index = index;
  model.tokenizer = MailroomTokenizer();
  model.vocab = model.tokenizer->vocab_size();
  model.max_context = 32;
  v1::Model& description = model.description;
  description.set_name(name);
  description.set_architecture("llama");
  description.set_num_layers(2);
  description.set_head_dim(4);
  description.set_query_heads(9);
  description.set_query_heads_unpruned(12);
  description.set_kv_heads(3);
  description.set_kv_heads_unpruned(4);
  description.set_kv_dtype("f16");
  description.set_kv_bytes_per_token(48);
  description.set_kv_bytes_per_token_unpruned(64);
  description.set_kv_block_bytes(48 * 16);
  description.add_layers()->set_layer(0);
  model.mask_digest = "0badcafe";
  model.load_time = absl::Milliseconds(250);
  if (!labels.empty()) {
    config::v1::Classify spec;
    spec.set_template_("<|bos|>{input}<|label|>");
    for (std::string& label : labels) spec.add_labels(std::move(label));
    absl::StatusOr<ClassifySetup> setup = SetUpClassify(spec, *model.tokenizer);
    CHECK(setup.ok()) << setup.status();
    model.classify = *std::move(setup);
  }
  return model;
}

}  // namespace headcount
