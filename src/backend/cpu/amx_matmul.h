// The part of MatMul that the tiles of AMX do, where the CPU has them: many
// rows of x times panels of 4 bits. The bits are those of quantized_matmul.h: a
// product of two small integers, and the sum of 32 of them, have no more than
// the 24 bits of a float, so bf16 inputs and float sums are exact. That saves
// the conversion of integers, and the float operations are what bounds it all.
#pragma once

#include <cstdint>

#include "backend/cpu/matmul.h"
#include "backend/cpu/matmul_task.h"
#include "backend/cpu/quantized_panel.h"

namespace headcount {

// In the CPU, granted by the kernel, which is asked once, and not above the
// targets that Highway may choose.
bool HasAmx();

// Whether AMX is there, and the faster way for so many rows.
bool AmxIsBetter(const PackedMatrix& w, int64_t rows);

// x: [up to 16 rows, bytes, blocks]; out: [blocks, bytes]. Further rows of
// `out` keep what they had.
void PackAmxRows(const ActivationBlock* x, int64_t rows, int bytes,
                 int64_t blocks, AmxBlock* out);

// As QuantizedMatMulTask, for 4 bits. x: [operands.rows / 16, rounded up,
// blocks, operands.w->input_bytes()]; task.row_begin is a multiple of 16, and
// the task has at most kAmxTaskRows.
void AmxMatMulTask(const MatMulOperands& operands, const AmxBlock* x,
                   const MatMulTask& task);

}  // namespace headcount
