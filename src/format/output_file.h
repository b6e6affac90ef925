// A file that is there whole or not at all.
//
//   absl::StatusOr<OutputFile> file = OutputFile::Create("model.gguf");
//   absl::Status status = file->Append(bytes);
//   if (status.ok()) status = file->Commit();
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace headcount {

// Bytes go to a file of another name in the same folder, which Commit renames;
// without it the destructor removes that file, and what was at the path before
// stays. Movable.
class OutputFile {
 public:
  static absl::StatusOr<OutputFile> Create(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // Errors name the path and what the system says, such as a full disk.
  absl::Status Append(absl::Span<const std::byte> bytes);
  absl::Status Append(std::string_view text);
  // Once, after everything: what was written is on the disk, and the name its
  // own. A file of that name is replaced.
  absl::Status Commit();

 private:
  OutputFile(std::string path, std::string partial, int file);

  std::string path_;
  std::string partial_;  // empty: committed, or moved from
  int file_ = -1;
};

}  // namespace headcount
