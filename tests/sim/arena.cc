#include "tests/sim/arena.h"

#include <algorithm>

#include "heads/kv_geometry.h"

namespace headcount::sim {

size_t Arena::WordOf(const Pages& pages, int32_t position) const {
  const auto entry = static_cast<size_t>(position / kBlockTokens);
  const int64_t slot = position % kBlockTokens;
  const int64_t byte =
      pages.offsets[entry] + slot * (pages.block_bytes / kBlockTokens);
  return static_cast<size_t>(byte / 8);
}

void Arena::Read(const Pages& pages, absl::Span<const uint64_t> contents,
                 int32_t first, int32_t end) {
  const auto last =
      static_cast<size_t>(pages.block_bytes / kBlockTokens / 8 - 1);
  const uint64_t tag = Tag(pages);
  for (int32_t p = first; p < end; ++p) {
    const auto entry = static_cast<size_t>(p / kBlockTokens);
    if (!verdict_->Expect(
            entry < pages.offsets.size() && pages.offsets[entry] >= 0,
            "I12 reads a block that is not there", "position ", p)) {
      return;
    }
    const size_t word = WordOf(pages, p);
    const uint64_t wanted = contents[static_cast<size_t>(p)] + tag;
    if (!verdict_->Expect(
            words_[word] == wanted && words_[word + last] == wanted,
            "I12 reads what is not its own", "position ", p, " of group ",
            pages.group)) {
      return;
    }
  }
}

void Arena::Write(const Pages& pages, absl::Span<const uint64_t> contents,
                  int32_t first, int32_t end) {
  const auto words = static_cast<size_t>(pages.block_bytes / kBlockTokens / 8);
  for (int32_t p = first; p < end; ++p) {
    const auto entry = static_cast<size_t>(p / kBlockTokens);
    if (!verdict_->Expect(
            entry < pages.offsets.size() && pages.offsets[entry] >= 0,
            "I12 writes a block that is not there", "position ", p)) {
      return;
    }
    std::fill_n(words_.begin() + static_cast<int64_t>(WordOf(pages, p)), words,
                contents[static_cast<size_t>(p)] + Tag(pages));
  }
}

uint64_t Arena::At(const Pages& pages, int32_t position) const {
  return words_[WordOf(pages, position)] - Tag(pages);
}

}  // namespace headcount::sim
