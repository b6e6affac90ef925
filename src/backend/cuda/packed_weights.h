// Weight matrices on their way to the device; packed_layout.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/cuda/packed_layout.h"
#include "backend/matrix_source.h"

namespace headcount::cuda {

// Of the dtype at rest that weights_at_rest.h names. CHECKs that the pieces
// cover the matrix.
PackedLayout LayoutFor(const MatrixSource& source, Precision precision);

// Packs panels [first, first + count) of the matrix, so that one of any size
// can go through a small buffer. host: [count * layout.panel_bytes()], all of
// which is written. May run on several threads, each with its own panels.
void PackPanels(const MatrixSource& source, const PackedLayout& layout,
                int64_t first, int64_t count, std::byte* host);

}  // namespace headcount::cuda
