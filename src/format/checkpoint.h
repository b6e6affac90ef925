// Read-only tensors of a model, as views over mapped files. Every view is
// checked against its file once, when the checkpoint is opened; reading a view
// after that needs no check.
//
//   auto checkpoint = Checkpoint::Open("models/mailroom");
//   const TensorView* weight = checkpoint->Find("model.norm.weight");
//
// The views stay valid while the checkpoint (or a move of it) lives and the
// files do not shrink.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/element_type.h"

namespace headcount {

class MappedFile;

inline constexpr size_t kMaxTensors = 65'536;  // of one checkpoint

// A tensor as a file lists it.
struct TensorEntry {
  std::string name;
  // Absent for an element type that the format knows and Headcount does not
  // compute with, such as I64 or Q2_K.
  std::optional<ElementType> dtype;
  std::string_view type_name;  // as the format spells it; never freed
  std::vector<int64_t> shape;  // row-major
  absl::Span<const std::byte> data;
};

struct TensorView {
  ElementType dtype = ElementType::kF32;
  std::vector<int64_t> shape;  // row-major
  // product(shape) elements, in no particular alignment.
  absl::Span<const std::byte> data;
};

// A tensor of an element type that Headcount does not compute with.
struct UnreadTensor {
  std::string_view type_name;  // such as "I64" or "Q2_K"; never freed
  int64_t bytes = 0;
};

// Movable, not copyable. Thread-safe to read.
class Checkpoint {
 public:
  // `path` is a .safetensors or .gguf file, or a directory that holds
  // model.safetensors, model.safetensors.index.json with its shards, or no
  // safetensors and one .gguf file. NotFound when there is no such file;
  // InvalidArgument, naming file and tensor, when one is malformed. Tensors
  // keep the names that they have there.
  static absl::StatusOr<Checkpoint> Open(const std::string& path);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  // Null when there is no tensor of that name.
  const TensorView* Find(std::string_view name) const;
  const absl::flat_hash_map<std::string, TensorView>& tensors() const {
    return tensors_;
  }
  // Tensors that are there and were checked, but cannot be read.
  const absl::flat_hash_map<std::string, UnreadTensor>& unread() const {
    return unread_;
  }
  // Sum of the sizes of all `tensors`.
  int64_t tensor_bytes() const { return tensor_bytes_; }

  // Hex SHA-256 that a heads/1 file names: of the file; for several shards, of
  // the lines "<sha256>  <file name>\n" in order of name. Reads every byte.
  absl::StatusOr<std::string> Sha256() const;

 private:
  Checkpoint();

  std::vector<std::unique_ptr<MappedFile>> files_;  // by file name
  absl::flat_hash_map<std::string, TensorView> tensors_;
  absl::flat_hash_map<std::string, UnreadTensor> unread_;
  int64_t tensor_bytes_ = 0;
};

}  // namespace headcount
