#include "format/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/quoted.h"

namespace headcount {

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the path ", Quoted(path), " contains a NUL byte"));
  }
  std::string partial = absl::StrCat(path, ".partial-", getpid());
  const int file =
      open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  return OutputFile(path, std::move(partial), file);
}

OutputFile::OutputFile(std::string path, std::string partial, int file)
    : path_(std::move(path)), partial_(std::move(partial)), file_(file) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, "")),
      file_(std::exchange(other.file_, -1)) {}

OutputFile::~OutputFile() {
  if (file_ >= 0) close(file_);
  if (!partial_.empty()) unlink(partial_.c_str());
}

absl::Status OutputFile::Append(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path_));
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Append(std::string_view text) {
  return Append(absl::Span<const std::byte>(
      reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

absl::Status OutputFile::Commit() {
  if (fsync(file_) != 0 || close(std::exchange(file_, -1)) != 0 ||
      std::rename(partial_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path_));
  }
  partial_.clear();
  return absl::OkStatus();
}

}  // namespace headcount
