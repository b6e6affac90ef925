// What the weights of a decoder are called in a file.
#pragma once

#include "model/model_config.h"

namespace headcount {

// Names without ".weight" and ".bias", which are the same everywhere.
struct WeightNames {
  const char* embedding;
  const char* final_norm;
  const char* output;

  const char* layers;  // before the number of a layer and "."
  // Of a layer.
  const char* attention_norm;
  const char* query;
  const char* key;
  const char* value;
  const char* query_norm;
  const char* key_norm;
  const char* attention_out;
  const char* ffn_norm;
  const char* gate;
  const char* up;
  const char* down;

  const char* config;  // where the shapes are implied, for errors
};

const WeightNames& WeightNamesOf(WeightNaming naming);

}  // namespace headcount
