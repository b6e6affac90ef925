// A kernel and how it is launched: on a grid of one dimension, whose blocks the
// header of its parameters counts.
#pragma once

namespace headcount::cuda {

template <class Params>
struct Kernel {
  void (*kernel)(const Params) = nullptr;
  int threads = 0;       // of a block
  int shared_bytes = 0;  // dynamic; may exceed 48 KiB, which must be asked for
};

}  // namespace headcount::cuda
