#include "tests/unit/model/reference_backend.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"

namespace headcount {
namespace {

size_t Size(int64_t value) { return static_cast<size_t>(value); }

float FloatFromHalf(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  const float sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<float>::infinity()
                         : std::numeric_limits<float>::quiet_NaN();
  }
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                               : std::ldexp(static_cast<float>(1024 + fraction),
                                            exponent - 25));
}

// To the nearest, ties to even.
uint16_t HalfFromFloat(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7E00;
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7C00);
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude < 2^exponent
  exponent = std::max(exponent, -13);
  // Multiples of 2^(exponent - 11) have 11 significant bits. A result of 2048
  // carries into the exponent's bits by itself.
  const float steps = std::nearbyint(std::ldexp(magnitude, 11 - exponent));
  const int fraction = static_cast<int>(steps);
  const int bits =
      fraction < 1024 ? fraction : fraction + (exponent + 13) * 1024;
  return static_cast<uint16_t>(sign | bits);
}

float ReadElement(const MatrixPiece& piece, int64_t row, int64_t col) {
  const int64_t index = row * piece.stride + piece.first_col + col;
  if (piece.dtype == ElementType::kF32) {
    float value = 0;
    std::memcpy(&value, piece.data + index * 4, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, piece.data + index * 2, 2);
  if (piece.dtype == ElementType::kF16) return FloatFromHalf(bits);
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
          values_.at(to) = ReadElement(piece, row, col);
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

float ReadKv(KvDtype dtype, const std::byte* page, int64_t index) {
  if (dtype == KvDtype::kF32) {
    float value = 0;
    std::memcpy(&value, page + index * 4, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, page + index * 2, 2);
  return FloatFromHalf(bits);
}

void WriteKv(KvDtype dtype, float value, std::byte* page, int64_t index) {
  if (dtype == KvDtype::kF32) {
    std::memcpy(page + index * 4, &value, 4);
    return;
  }
  const uint16_t bits = HalfFromFloat(value);
  std::memcpy(page + index * 2, &bits, 2);
}

class ReferenceBackend final : public Backend {
 public:
  std::string name() const override { return "reference"; }

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
    const auto q = static_cast<int64_t>(layer.heads->query_heads.size());
    const auto kv = static_cast<int64_t>(layer.heads->kv_heads.size());
    const int64_t dim = layer.head_dim;
    for (const StepSequence& sequence : inputs_.sequences) {
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
        for (int64_t slot = 0; slot < kv; ++slot) {
          const Location at =
              Locate(layer, sequence, position, static_cast<int>(slot), arena);
          for (int64_t d = 0; d < dim; ++d) {
            WriteKv(at.dtype, row[(q + slot) * dim + d], at.k, d);
            WriteKv(at.dtype, row[(q + kv + slot) * dim + d], at.v, d);
          }
        }
      }
    }
  }

  void Attention(const AttentionLayer& layer, const float* qkv,
                 const void* arena, float* out) override {
    const auto q = static_cast<int64_t>(layer.heads->query_heads.size());
    const auto kv = static_cast<int64_t>(layer.heads->kv_heads.size());
    const int64_t dim = layer.head_dim;
    for (const StepSequence& sequence : inputs_.sequences) {
      for (int64_t i = 0; i < sequence.num_rows; ++i) {
        const int64_t row = sequence.first_row + i;
        for (int64_t slot = 0; slot < kv; ++slot) {
          const KvHead& head = layer.heads->kv_heads[Size(slot)];
          for (int64_t query = head.first_query;
               query < head.first_query + head.num_queries; ++query) {
            Attend(layer, sequence, sequence.past + i, static_cast<int>(slot),
                   qkv + row * (q + 2 * kv) * dim + query * dim, arena,
                   out + (row * q + query) * dim);
          }
        }
      }
    }
  }

  void GateHeads(const AttentionLayer& layer, float* context) override {
    const auto heads = static_cast<int64_t>(layer.heads->query_heads.size());
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

  void GatherRows(const float* x, absl::Span<const int32_t> indices,
                  int64_t cols, float* out) override {
    for (int32_t index : indices)
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
    KvDtype dtype = KvDtype::kF32;
  };

  Location Locate(const AttentionLayer& layer, const StepSequence& sequence,
                  int64_t position, int slot, const void* arena) const {
    const int group = layer.heads->kv_heads[Size(slot)].group;
    const KvPage& page = layer.geometries[Size(group)].page(layer.layer, slot);
    const int64_t block = inputs_.block_offsets[Size(
        sequence.block_begin[Size(group)] + position / kBlockTokens)];
    CHECK(block >= 0) << "position " << position << " has been given back";
    const int64_t token_bytes = layer.head_dim * KvDtypeBytes(page.dtype);
    auto* bytes = static_cast<std::byte*>(const_cast<void*>(arena)) + block +
                  position % kBlockTokens * token_bytes;
    return {bytes + page.k_offset, bytes + page.v_offset, page.dtype};
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
    const int64_t first =
        layer.heads->kv_heads[Size(slot)].retention.FirstSeen(position);
    std::vector<double> weights;
    for (int64_t token = first; token <= position; ++token) {
      const Location at = Locate(layer, sequence, token, slot, arena);
      double dot = 0;
      for (int d = 0; d < dim; ++d) {
        dot += static_cast<double>(query[d]) * ReadKv(at.dtype, at.k, d);
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
    for (int64_t token = first; token <= position; ++token) {
      const Location at = Locate(layer, sequence, token, slot, arena);
      for (int d = 0; d < dim; ++d) {
        context[Size(d)] +=
            weights[Size(token - first)] * ReadKv(at.dtype, at.v, d);
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
