// Names for what a block of KV holds: a hash of its tokens and of all tokens
// before them.
//
//   PrefixHasher hasher(key);
//   BlockHash hash = hasher.Root(salt);
//   hash = hasher.Next(hash, tokens);  // of the first block, and so on
//
// SipHash-2-4 of 128 bits (Aumasson and Bernstein 2012): who does not know the
// key cannot make two texts collide.
#pragma once

#include <openssl/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/types/span.h"

namespace headcount {

using BlockHash = std::array<std::byte, 16>;
using PrefixHashKey = std::array<std::byte, 16>;

// Not thread-safe.
class PrefixHasher {
 public:
  explicit PrefixHasher(const PrefixHashKey& key);

  // Sequences with unlike salts have no hash in common.
  BlockHash Root(std::string_view salt);
  // Of the block with these tokens after the one of `previous`.
  BlockHash Next(const BlockHash& previous, absl::Span<const int32_t> tokens);

 private:
  struct Free {
    void operator()(EVP_MAC_CTX* state) const;
  };

  BlockHash Hash(const void* first, size_t first_bytes, const void* second,
                 size_t second_bytes);

  std::unique_ptr<EVP_MAC_CTX, Free> state_;
};

}  // namespace headcount
