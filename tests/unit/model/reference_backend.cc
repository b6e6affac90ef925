#include "tests/unit/model/reference_backend.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "tests/unit/model/reference_pages.h"

namespace headcount {
namespace {

size_t Size(int64_t value) { return static_cast<size_t>(value); }

float ReadWeight(const MatrixPiece& piece, int64_t row, int64_t col) {
  const int64_t index = row * piece.stride + piece.first_col + col;
  if (piece.dtype == ElementType::kF32) {
    float value = 0;
    std::memcpy(&value, piece.data + index * 4, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, piece.data + index * 2, 2);
  if (piece.dtype == ElementType::kF16) return reference::FloatFromHalf(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

class ReferenceBuffer final : public Buffer {
 public:
  explicit ReferenceBuffer(int64_t bytes)
      : bytes_(bytes), words_(Size(bytes / 8 + 1), ~uint64_t{0}) {}
  void* data() override { return words_.data(); }
  int64_t bytes() const override { return bytes_; }

 private:
  int64_t bytes_;
  std::vector<uint64_t> words_;
};

class ReferenceMatrix final : public Matrix {
 public:
  explicit ReferenceMatrix(const MatrixSource& source)
      : rows_(source.rows), cols_(source.cols), values_(Size(rows_ * cols_)) {
    std::vector<int> times_covered(values_.size(), 0);
    for (const MatrixPiece& piece : source.pieces) {
      for (int64_t row = 0; row < piece.rows; ++row) {
        for (int64_t col = 0; col < piece.cols; ++col) {
          const size_t to = Size((piece.row + row) * cols_ + piece.col + col);
          values_.at(to) = ReadWeight(piece, row, col);
          ++times_covered.at(to);
        }
      }
    }
    for (int times : times_covered) CHECK(times == 1) << times;
  }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return rows_ * cols_ * 4; }
  const float* row(int64_t index) const {
    return values_.data() + index * cols_;
  }

 private:
  int64_t rows_;
  int64_t cols_;
  std::vector<float> values_;
};

const ReferenceMatrix& Of(const Matrix& matrix) {
  return static_cast<const ReferenceMatrix&>(matrix);
}

class ReferenceBackend final : public Backend {
 public:
  std::string name() const override { return "reference"; }
  absl::Status CheckHeads(int /*head_dim*/, KvDtype /*dtype*/) const override {
    return absl::OkStatus();
  }

  int64_t FreeBytes() const override { return INT64_MAX; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return std::make_unique<ReferenceBuffer>(bytes);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(
      const MatrixSource& source, Precision /*precision*/) override {
    return std::make_unique<ReferenceMatrix>(source);
  }
  void CopyToDevice(const void* host, int64_t bytes, void* device) override {
    std::memcpy(device, host, Size(bytes));
  }
  void CopyToHost(const void* device, int64_t bytes, void* host) override {
    std::memcpy(host, device, Size(bytes));
  }

  void BeginStep(const StepInputs& inputs, const Rope& rope) override {
    inputs_ = inputs;
    rope_ = rope;
  }

  void Embed(const Matrix& table, float* out) override {
    for (int32_t token : inputs_.tokens) {
      out = std::copy_n(Of(table).row(token), table.cols(), out);
    }
  }

  void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows,
               int64_t cols, float* out) override {
    for (int64_t r = 0; r < rows; ++r) {
      const float* from = x + r * cols;
      double squares = 0;
      for (int64_t c = 0; c < cols; ++c) {
        squares += static_cast<double>(from[c]) * from[c];
      }
      const double scale =
          1.0 / std::sqrt(squares / static_cast<double>(cols) + epsilon);
      for (int64_t c = 0; c < cols; ++c) {
        out[r * cols + c] = static_cast<float>(from[c] * scale * weight[c]);
      }
    }
  }

  void MatMul(const Matrix& w, const float* x, int64_t rows, const float* bias,
              MatMulMode mode, float* out) override {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < w.rows(); ++o) {
        const float* weights = Of(w).row(o);
        double sum = bias == nullptr ? 0.0 : bias[o];
        for (int64_t c = 0; c < w.cols(); ++c) {
          sum += static_cast<double>(weights[c]) * x[r * w.cols() + c];
        }
        float& to = out[r * w.rows() + o];
        to = static_cast<float>(mode == MatMulMode::kAdd ? to + sum : sum);
      }
    }
  }

  void RotateAndStoreKv(const AttentionLayer& layer, float* qkv,
                        void* arena) override {
    const int64_t q = layer.query_heads;
    const int64_t kv = layer.kv_heads;
    const int64_t dim = layer.head_dim;
    for (const StepSequence& sequence : inputs_.sequences) {
      const VariantLayer& variant = VariantOf(layer, sequence);
      for (int64_t i = 0; i < sequence.num_rows; ++i) {
        float* row = qkv + (sequence.first_row + i) * (q + 2 * kv) * dim;
        const int64_t position = sequence.past + i;
        CHECK(inputs_.positions[Size(sequence.first_row + i)] == position);
        if (layer.q_norm != nullptr) {
          RmsNorm(row, layer.q_norm, layer.norm_epsilon, q, dim, row);
          float* const keys = row + q * dim;
          RmsNorm(keys, layer.k_norm, layer.norm_epsilon, kv, dim, keys);
        }
        for (int64_t head = 0; head < q + kv; ++head) {
          Rotate(position, dim, row + head * dim);
        }
        for (size_t slot = 0; slot < variant.heads->kv_heads.size(); ++slot) {
          const Location at =
              Locate(layer, sequence, position, static_cast<int>(slot), arena);
          const int64_t from = q + variant.kv_slots[slot];
          reference::StoreRow(row + from * dim, dim, at.dtype, at.k,
                              at.k_scale);
          reference::StoreRow(row + (from + kv) * dim, dim, at.dtype, at.v,
                              at.v_scale);
        }
      }
    }
  }

  void Attention(const AttentionLayer& layer, const float* qkv,
                 const void* arena, float* out) override {
    const int64_t q = layer.query_heads;
    const int64_t kv = layer.kv_heads;
    const int64_t dim = layer.head_dim;
    for (const StepSequence& sequence : inputs_.sequences) {
      const VariantLayer& variant = VariantOf(layer, sequence);
      for (int64_t i = 0; i < sequence.num_rows; ++i) {
        const int64_t row = sequence.first_row + i;
        std::fill_n(out + row * q * dim, q * dim, 0.0f);
        for (size_t slot = 0; slot < variant.heads->kv_heads.size(); ++slot) {
          const KvHead& head = variant.heads->kv_heads[slot];
          for (int j = 0; j < head.num_queries; ++j) {
            const int64_t query =
                variant.query_slots[Size(head.first_query + j)];
            Attend(layer, sequence, sequence.past + i, static_cast<int>(slot),
                   qkv + row * (q + 2 * kv) * dim + query * dim, arena,
                   out + (row * q + query) * dim);
          }
        }
      }
    }
  }

  void GateHeads(const AttentionLayer& layer, float* context) override {
    const int64_t heads = layer.query_heads;
    const int64_t dim = layer.head_dim;
    for (const StepSequence& sequence : inputs_.sequences) {
      if (sequence.gates_begin < 0) continue;
      const int64_t first = sequence.gates_begin + layer.query_heads_below;
      for (int64_t i = 0; i < sequence.num_rows * heads * dim; ++i) {
        context[sequence.first_row * heads * dim + i] *=
            inputs_.head_gates[Size(first + i / dim % heads)];
      }
    }
  }

  void SwiGlu(const float* x, int64_t rows, int64_t width,
              float* out) override {
    for (int64_t r = 0; r < rows; ++r) {
      const float* gate = x + r * 2 * width;
      for (int64_t i = 0; i < width; ++i) {
        const double g = gate[i];
        out[r * width + i] =
            static_cast<float>(g / (1.0 + std::exp(-g)) * gate[width + i]);
      }
    }
  }

  void GatherRows(const float* x, int64_t cols, float* out) override {
    for (int32_t index : inputs_.logits_rows)
      out = std::copy_n(x + index * cols, cols, out);
  }

  std::vector<SampleResult> Sample(const float* logits, int64_t vocab,
                                   absl::Span<const SampleRow> rows) override {
    std::vector<SampleResult> results;
    SampleScratch scratch;
    for (const SampleRow& row : rows) {
      results.push_back(SampleOne(
          absl::MakeConstSpan(logits + row.logits_row * vocab, Size(vocab)),
          row, &scratch));
    }
    return results;
  }

 private:
  // One token of one KV head in the arena.
  struct Location {
    std::byte* k = nullptr;
    std::byte* v = nullptr;
    std::byte* k_scale = nullptr;  // of quantised dtypes
    std::byte* v_scale = nullptr;
    KvDtype dtype = KvDtype::kF32;
  };

  static const VariantLayer& VariantOf(const AttentionLayer& layer,
                                       const StepSequence& sequence) {
    return layer.variants[Size(sequence.variant)];
  }

  Location Locate(const AttentionLayer& layer, const StepSequence& sequence,
                  int64_t position, int slot, const void* arena) const {
    const VariantLayer& variant = VariantOf(layer, sequence);
    const int group = variant.heads->kv_heads[Size(slot)].group;
    const KvPage& page =
        variant.geometries[Size(group)].page(layer.layer, slot);
    const int64_t block = inputs_.block_offsets[Size(
        sequence.block_begin[Size(group)] + position / kBlockTokens)];
    CHECK(block >= 0) << "position " << position << " has been given back";
    const int64_t token = position % kBlockTokens;
    const int64_t row = token * KvRowBytes(layer.head_dim, page.dtype);
    auto* bytes = static_cast<std::byte*>(const_cast<void*>(arena)) + block;
    return {bytes + page.k_offset + row, bytes + page.v_offset + row,
            bytes + page.k_scales_offset + token * 2,
            bytes + page.v_scales_offset + token * 2, page.dtype};
  }

  void Rotate(int64_t position, int64_t dim, float* head) const {
    for (int64_t i = 0; i < dim / 2; ++i) {
      // The angle is rounded to float32, as the models were trained.
      const double angle =
          static_cast<float>(position) * rope_.inverse_frequency[Size(i)];
      const double cosine = std::cos(angle) * rope_.scale;
      const double sine = std::sin(angle) * rope_.scale;
      const double a = head[i];
      const double b = head[i + dim / 2];
      head[i] = static_cast<float>(a * cosine - b * sine);
      head[i + dim / 2] = static_cast<float>(b * cosine + a * sine);
    }
  }

  void Attend(const AttentionLayer& layer, const StepSequence& sequence,
              int64_t position, int slot, const float* query, const void* arena,
              float* out) const {
    const int dim = layer.head_dim;
    const Retention& retention =
        VariantOf(layer, sequence).heads->kv_heads[Size(slot)].retention;
    std::vector<int64_t> seen;
    for (int64_t token = 0; token <= position; ++token) {
      if (token < retention.sink || token >= retention.FirstSeen(position)) {
        seen.push_back(token);
      }
    }
    std::vector<double> weights;
    for (const int64_t token : seen) {
      const Location at = Locate(layer, sequence, token, slot, arena);
      double dot = 0;
      for (int d = 0; d < dim; ++d) {
        dot += query[d] * reference::ReadElement(at.k, at.k_scale, at.dtype, d);
      }
      weights.push_back(dot / std::sqrt(static_cast<double>(dim)));
    }
    const double highest = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) {
      weight = std::exp(weight - highest);
      sum += weight;
    }
    std::vector<double> context(Size(dim), 0.0);
    for (size_t i = 0; i < seen.size(); ++i) {
      const Location at = Locate(layer, sequence, seen[i], slot, arena);
      for (int d = 0; d < dim; ++d) {
        context[Size(d)] +=
            weights[i] * reference::ReadElement(at.v, at.v_scale, at.dtype, d);
      }
    }
    for (int d = 0; d < dim; ++d) {
      out[d] = static_cast<float>(context[Size(d)] / sum);
    }
  }

  StepInputs inputs_;
  Rope rope_;
};

}  // namespace

std::unique_ptr<Backend> CreateReferenceBackend() {
  return std::make_unique<ReferenceBackend>();
}

}  // namespace headcount
