// A device: its memory, and the operations that a model's step is made of.
//
// Activations are float32, row-major and dense, one row for each token of the
// step, in memory of the device. Weights are packed once, at load, into a
// layout that is the backend's own business. The host decides the shape of a
// step (StepInputs); no operation does.
//
// Calls are validated by the model once, when it is built: sizes that do not
// fit are our own bug (CHECK). One thread per device drives a backend;
// Allocate, Pack and the copies may be called by others meanwhile, so that a
// model can be loaded while others run. A backend outlives what it made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/attention_plan.h"
#include "backend/matrix_source.h"
#include "backend/sampling.h"
#include "heads/head_layout.h"
#include "heads/kv_geometry.h"

namespace headcount {

// Device memory, released with the handle. Contents start undefined, except
// that the pages of a large buffer are not resident before they are written.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() = 0;  // a device address
  virtual int64_t bytes() const = 0;
};

// What becomes of quantised weights. Others stay as they are in both cases.
enum class Precision : uint8_t {
  // Quantised at rest, and multiplied as integers: rows of x are quantised on
  // the way, to 8 bits or to 16 (MatrixSource::wide_input). Backends choose the
  // layout; what they round is no coarser than the weights.
  kFast,
  kExact,  // float32 at rest and in every operation: the reference
};

// A weight matrix [rows, cols] packed for MatMul; rows are output features.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual int64_t bytes() const = 0;  // resident, padding included
};

// Rotary embedding of one model (Su et al. 2021, arXiv:2104.09864), halves
// convention: element i pairs with i + head_dim / 2.
struct Rope {
  std::vector<float> inverse_frequency;  // [head_dim / 2]
  float scale = 1.0f;                    // on cos and sin (YaRN's mscale)
};

struct AttentionLayer;

// What a step does, the same for every layer of the model. Spans stay valid
// until the step's last operation has returned.
struct StepInputs {
  absl::Span<const int32_t> tokens;     // [rows]
  absl::Span<const int32_t> positions;  // [rows]
  absl::Span<const StepSequence> sequences;
  // Byte offsets in the arena: the block table of sequence s in group g starts
  // at sequences[s].block_begin[g].
  absl::Span<const int64_t> block_offsets;
  // [layer class]; empty for a backend that does not walk them.
  absl::Span<const AttentionPlan> plans;
  // Of sequences that have gates: one for each query head that the weights
  // hold, by layer.
  absl::Span<const float> head_gates = {};
  // Those whose attention the step computes, in order.
  absl::Span<const AttentionLayer> layers = {};
  // [StepSequence::variant]: `layers` are those of other steps whose ids are
  // the same ones, in this order. Empty: nobody knows.
  absl::Span<const uint64_t> variant_ids = {};
  absl::Span<const int32_t> logits_rows = {};  // of the step: see GatherRows
  // Nothing is copied from or to the host up to EndStep: operations may be held
  // back until then.
  bool uninterrupted = false;
};

// How many steps went to a device as a graph of launches, made before or for
// the step, and how many launch by launch.
struct StepGraphs {
  int64_t replayed = 0;  // as it was
  int64_t updated = 0;   // with some arguments of launches replaced
  int64_t built = 0;
  int64_t direct = 0;  // no graph
};

// The heads of a layer that some sequences of a step run, and where these lie
// in the layer's projection: all of it, or what a variant of the model keeps.
struct VariantLayer {
  const LayerHeads* heads = nullptr;
  absl::Span<const KvGeometry> geometries;  // [group]
  absl::Span<const int> query_slots;  // [slot in heads] -> of the projection
  absl::Span<const int> kv_slots;     // [slot in heads] -> of the projection
};

// What attention must know of a layer. Its projection is [rows, (query_heads +
// 2 kv_heads) * head_dim]: the query heads that the weights hold, by slot, then
// keys, then values of KV heads by slot.
struct AttentionLayer {
  int query_heads = 0;
  int kv_heads = 0;
  absl::Span<const VariantLayer> variants;  // [StepSequence::variant]
  int layer = 0;
  int layer_class = 0;            // in StepInputs::plans
  int64_t query_heads_below = 0;  // in the projections of the layers before
  int head_dim = 0;
  // Weights of an RMSNorm over each query head and each key head on its own,
  // before rotation (Dehghani et al. 2023, arXiv:2302.05442). [head_dim]; both
  // null: none.
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
};

// What no step of a model exceeds, and what it is made of.
struct StepLimits {
  int64_t rows = 0;
  int64_t logits_rows = 0;
  int64_t context = 0;  // tokens of a sequence
  int64_t vocab = 0;
  absl::Span<const AttentionLayer> layers;  // as one variant runs them
  absl::Span<const Matrix* const> matrices;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;  // such as "cpu (AVX3, 2 threads)"

  // Unavailable once the device has failed for good: what operations gave since
  // is of no use, and only another process can go on. Thread-safe.
  virtual absl::Status status() const { return absl::OkStatus(); }

  // InvalidArgument, naming it, for a kind of KV head that Attention does not
  // know.
  virtual absl::Status CheckHeads(int head_dim, KvDtype dtype) const = 0;

  // Whether Attention walks StepInputs::plans.
  virtual bool walks_plans() const { return true; }

  // Whether operations return before they are done, so that what the host does
  // up to Sample costs no time.
  virtual bool runs_ahead() const { return false; }

  // Since the start; all 0 for a backend without graphs. Thread-safe.
  virtual StepGraphs step_graphs() const { return {}; }

  // Memory that Allocate could give now, about.
  virtual int64_t FreeBytes() const = 0;
  // ResourceExhausted when there is no room.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) = 0;
  // Reads `source` once; only its pieces are touched.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> Pack(
      const MatrixSource& source, Precision precision) = 0;
  virtual void CopyToDevice(const void* host, int64_t bytes, void* device) = 0;
  virtual void CopyToHost(const void* device, int64_t bytes, void* host) = 0;

  // Takes the memory that the operations of such steps need for themselves, so
  // that none of them has to. Between steps, by the thread that drives them.
  // ResourceExhausted when there is no room; what there was stays.
  virtual absl::Status ReserveSteps(const StepLimits& /*limits*/) {
    return absl::OkStatus();
  }

  // Starts a step: uploads what the operations below need, and computes the
  // cosines and sines of its positions.
  virtual void BeginStep(const StepInputs& inputs, const Rope& rope) = 0;
  // Ends it: what was held back is on its way. Sample and copies come after.
  virtual void EndStep() {}

  // out[r] = table row tokens[r]. [rows, table.cols()]
  virtual void Embed(const Matrix& table, float* out) = 0;

  // out[r] = x[r] / rms(x[r]) * weight (Zhang & Sennrich 2019,
  // arXiv:1910.07467). x, out: [rows, cols]; weight: [cols]. In place allowed.
  virtual void RmsNorm(const float* x, const float* weight, float epsilon,
                       int64_t rows, int64_t cols, float* out) = 0;

  // out = x W^T + bias, or out += that. x: [rows, w.cols()]; out: [rows,
  // w.rows()]; bias: [w.rows()] or null. The sum over columns has one order,
  // whatever `rows` is, so that a row's result does not depend on its company.
  enum class MatMulMode { kStore, kAdd };
  virtual void MatMul(const Matrix& w, const float* x, int64_t rows,
                      const float* bias, MatMulMode mode, float* out) = 0;

  // Normalises (where the layer says so) and rotates queries and keys in place,
  // and writes keys and values into the pages of the arena: of each sequence
  // those of the KV heads that it runs.
  virtual void RotateAndStoreKv(const AttentionLayer& layer, float* qkv,
                                void* arena) = 0;

  // Causal attention of every query row over the pages of its sequence, as far
  // as each KV head's retention reaches, scaled by 1/sqrt(head_dim). out:
  // [rows, query_heads * head_dim], zero for heads that the row's sequence does
  // not run. A row's result does not depend on which other heads it runs.
  virtual void Attention(const AttentionLayer& layer, const float* qkv,
                         const void* arena, float* out) = 0;

  // context[r, slot] *= the gate of that query head, in the rows of sequences
  // that have gates. context: as Attention's out.
  virtual void GateHeads(const AttentionLayer& layer, float* context) = 0;

  // out[r, i] = silu(x[r, i]) * x[r, width + i] (Shazeer 2020,
  // arXiv:2002.05202). x: [rows, 2 * width]; out: [rows, width].
  virtual void SwiGlu(const float* x, int64_t rows, int64_t width,
                      float* out) = 0;

  // out[i] = x[StepInputs::logits_rows[i]]; rows of `cols` elements.
  virtual void GatherRows(const float* x, int64_t cols, float* out) = 0;

  // Draws and scores tokens from logits [*, vocab]; one result for each row
  // asked for, on the host. See sampling.h.
  virtual std::vector<SampleResult> Sample(
      const float* logits, int64_t vocab, absl::Span<const SampleRow> rows) = 0;
};

}  // namespace headcount
