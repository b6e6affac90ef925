// How a model looks, as text and as JSON; shared by list, show and check.
#pragma once

#include <string>

#include "cli/output.h"
#include "headcount/v1/model.pb.h"

namespace headcount {

// "ready".
std::string StateName(v1::Model::State state);

// "variant of mailroom", or nothing where a model has weights of its own.
std::string VariantNote(const std::string& variant_of);

// The query heads of a layer, one character each: # runs, . is pruned; a space
// between KV groups. "### #.# ..." is three groups of three. "-" for a layer
// that never had attention.
std::string HeadStrip(const v1::LayerHeads& layer);

// Everything about the model, for people; ends with a line feed. Says what runs
// now unless the state is unspecified; of a model that failed to load, why.
std::string RenderModel(const v1::Model& model);

// The message with the names of its fields; byte counts as numbers.
Json ModelJson(const v1::Model& model);

}  // namespace headcount
