#include "format/sha256.h"

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "openssl/evp.h"

namespace headcount {

absl::StatusOr<std::string> Sha256Hex(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(),
                 nullptr) != 1) {
    return absl::InternalError("OpenSSL has no SHA-256");
  }
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest), size});
}

}  // namespace headcount
