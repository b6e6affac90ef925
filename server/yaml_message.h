// A YAML tree into a protobuf message: the message is the schema.
//
// A map of YAML fills a message, its keys the field names; a key that is no
// field is an error that suggests the nearest one. A sequence fills a repeated
// field, or a message whose only field is repeated. A null leaves messages and
// lists as they are.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "server/yaml_tree.h"

namespace headcount {

// Fields that the tree does not name keep what `message` has. InvalidArgument
// "`file`:line: path.of.key: ...".
absl::Status FillMessage(const YamlNode& root, absl::string_view file,
                         google::protobuf::Message* message);

}  // namespace headcount
