// A whole file as bytes in memory, read when touched.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace headcount {

// Thread-safe. The bytes stay where they are for the life of the object; a
// file that shrinks meanwhile raises SIGBUS in whoever reads past its end.
class MappedFile {
 public:
  // NotFound when there is no such file; InvalidArgument when it is not a
  // regular file. Never waits: a pipe of that name is refused.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  absl::Span<const std::byte> bytes() const { return bytes_; }

 private:
  MappedFile(std::string path, absl::Span<const std::byte> bytes);

  const std::string path_;
  const absl::Span<const std::byte> bytes_;  // owned; empty: nothing is mapped
};

}  // namespace headcount
