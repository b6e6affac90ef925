#include "server/yaml_tree.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/limits.h"
#include "yaml-cpp/yaml.h"
// After yaml.h: this header of yaml-cpp 0.7 does not compile alone.
#include "yaml-cpp/eventhandler.h"

namespace headcount {
namespace {

// Builds the tree from the parser's events. Refuses by throwing the parser's
// own exception, which ParseYaml catches.
class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) Refuse(mark, "a second document");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    RefuseAnchor(mark, anchor);
    Add(mark, {.line = mark.line + 1});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Refuse(mark, "aliases are not allowed");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor, const std::string& value) override {
    RefuseAnchor(mark, anchor);
    RefuseTag(mark, tag);
    if (tag == "?" && (value == "~" || value == "null")) {
      return Add(mark, {.line = mark.line + 1});
    }
    Add(mark, {.kind = YamlNode::Kind::kScalar,
               .line = mark.line + 1,
               .scalar = value});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    RefuseAnchor(mark, anchor);
    RefuseTag(mark, tag);
    Open(mark, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag,
                  YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    RefuseAnchor(mark, anchor);
    RefuseTag(mark, tag);
    Open(mark, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  // A container whose end has not come, with the key that waits for its value.
  struct Container {
    YamlNode node;
    std::string key;
    int key_line = 1;
    bool has_key = false;
    YAML::Mark mark;
  };

  [[noreturn]] static void Refuse(const YAML::Mark& mark,
                                  const std::string& why) {
    throw YAML::ParserException(mark, why);
  }
  static void RefuseAnchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) Refuse(mark, "anchors are not allowed");
  }
  // "?" is a plain value, "!" a quoted one; all else was spelled out.
  static void RefuseTag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      Refuse(mark, "tags are not allowed");
    }
  }

  void Open(const YAML::Mark& mark, YamlNode::Kind kind) {
    if (static_cast<int>(open_.size()) >= kMaxYamlDepth) {
      Refuse(mark, absl::StrCat("nested deeper than ", kMaxYamlDepth));
    }
    if (WantsKey()) Refuse(mark, "a key must be a plain value");
    open_.push_back({.node = {.kind = kind, .line = mark.line + 1},
                     .key = {},
                     .mark = mark});
  }

  void Close() {
    Container closed = std::move(open_.back());
    open_.pop_back();
    Add(closed.mark, std::move(closed.node));
  }

  bool WantsKey() const {
    return !open_.empty() && open_.back().node.kind == YamlNode::Kind::kMap &&
           !open_.back().has_key;
  }

  void Add(const YAML::Mark& mark, YamlNode node) {
    if (++nodes_ > kMaxYamlNodes) {
      Refuse(mark, absl::StrCat("more than ", kMaxYamlNodes, " values"));
    }
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Container& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kSequence) {
      parent.node.items.push_back(std::move(node));
    } else if (WantsKey()) {
      SetKey(mark, parent, std::move(node));
    } else {
      node.key_line = parent.key_line;
      // The parser sees that there is none where the next key begins.
      if (node.kind == YamlNode::Kind::kNull) node.line = parent.key_line;
      parent.node.entries.emplace_back(std::move(parent.key), std::move(node));
      parent.key.clear();
      parent.has_key = false;
    }
  }

  static void SetKey(const YAML::Mark& mark, Container& parent, YamlNode node) {
    if (node.kind != YamlNode::Kind::kScalar) {
      Refuse(mark, "a key must be a plain value");
    }
    for (const auto& [key, value] : parent.node.entries) {
      if (key == node.scalar) {
        Refuse(mark,
               absl::StrCat("key '", node.scalar,
                            "' is here twice; first in line ", value.key_line));
      }
    }
    parent.key = std::move(node.scalar);
    parent.key_line = node.line;
    parent.has_key = true;
  }

  YamlNode root_;
  std::vector<Container> open_;
  int documents_ = 0;
  int nodes_ = 0;
};

}  // namespace

absl::StatusOr<YamlNode> ParseYaml(absl::string_view text,
                                   absl::string_view file) {
  if (static_cast<int64_t>(text.size()) > kMaxYamlBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": ", text.size(), " bytes; at most ", kMaxYamlBytes));
  }
  TreeBuilder builder;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ":", std::max(error.mark.line, 0) + 1, ": ", error.msg));
  }
  return builder.TakeRoot();
}

}  // namespace headcount
