// A part of a tensor as a tensor of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/element_type.h"
#include "format/checkpoint.h"
#include "format/tensor_to_write.h"
#include "model/head_rows.h"

namespace headcount {

// A vector has rows of one element, and no columns.
struct SlicedTensor {
  std::string name = {};
  // As it is to be written: the source's type, or F32 or F16.
  ElementType dtype = ElementType::kF32;
  const TensorView* source = nullptr;  // outlives it; null: zeros
  std::vector<Run> rows = {};          // of the source, one below the other
  std::vector<Run> columns = {};       // the same, side by side
};

// All of `source` as it is.
SlicedTensor WholeTensor(std::string name, const TensorView& source);

// Whether `columns` begin and end where blocks of `type` do, so that they can
// be taken without touching an element.
bool AreWholeBlocks(const std::vector<Run>& columns, ElementType type);

TensorToWrite ToWrite(const SlicedTensor& tensor);

}  // namespace headcount
