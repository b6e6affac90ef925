#include "kv/prefix_hash.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "base/check.h"

namespace headcount {

void PrefixHasher::Free::operator()(EVP_MAC_CTX* state) const {
  EVP_MAC_CTX_free(state);
}

PrefixHasher::PrefixHasher(const PrefixHashKey& key) {
  EVP_MAC* const mac = EVP_MAC_fetch(nullptr, "SIPHASH", nullptr);
  CHECK(mac != nullptr) << "OpenSSL has no SipHash";
  state_.reset(EVP_MAC_CTX_new(mac));
  EVP_MAC_free(mac);
  size_t bytes = sizeof(BlockHash);
  const OSSL_PARAM size[] = {
      OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &bytes),
      OSSL_PARAM_construct_end()};
  CHECK(EVP_MAC_init(state_.get(),
                     reinterpret_cast<const unsigned char*>(key.data()),
                     key.size(), size) == 1);
}

BlockHash PrefixHasher::Root(std::string_view salt) {
  return Hash(salt.data(), salt.size(), nullptr, 0);
}

BlockHash PrefixHasher::Next(const BlockHash& previous,
                             absl::Span<const int32_t> tokens) {
  return Hash(previous.data(), previous.size(), tokens.data(),
              tokens.size() * sizeof(int32_t));
}

BlockHash PrefixHasher::Hash(const void* first, size_t first_bytes,
                             const void* second, size_t second_bytes) {
  BlockHash hash;
  size_t bytes = 0;
  EVP_MAC_CTX* const state = state_.get();
  // Without a key, the last one stays.
  CHECK(EVP_MAC_init(state, nullptr, 0, nullptr) == 1);
  CHECK(EVP_MAC_update(state, static_cast<const unsigned char*>(first),
                       first_bytes) == 1);
  CHECK(EVP_MAC_update(state, static_cast<const unsigned char*>(second),
                       second_bytes) == 1);
  CHECK(EVP_MAC_final(state, reinterpret_cast<unsigned char*>(hash.data()),
                      &bytes, hash.size()) == 1);
  CHECK(bytes == hash.size()) << bytes;
  return hash;
}

}  // namespace headcount
