// The integer part of MatMul: rows of x in 8 or 16 bits times panels in 4 or 8.
#pragma once

#include <cstdint>

#include "backend/cpu/matmul.h"
#include "backend/cpu/matmul_task.h"
#include "backend/cpu/quantized_panel.h"

namespace headcount {

// One row: each block of 32 columns is rounded to multiples of its largest
// magnitude / 127 (one byte) or / 32,639 (two). A block with NaN or infinity
// has the scale NaN; one whose largest is below 2^-100 is zero. out: [bytes,
// blocks], the last one filled up with zeros.
void QuantizeRow(const float* x, int64_t cols, int bytes, ActivationBlock* out);

// For each output and each block of columns, in rising order and from 0,
//
//   sum = fma(min, scaled_sum of x, sum)               at 4 bits
//   sum = fma(integer dot product, scale * scale of x, sum)
//
// which has the same bits on every target. x: [operands.rows,
// operands.w->input_bytes(), blocks].
void QuantizedMatMulTask(const MatMulOperands& operands,
                         const ActivationBlock* x, const MatMulTask& task);

}  // namespace headcount
