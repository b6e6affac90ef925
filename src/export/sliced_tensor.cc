#include "export/sliced_tensor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/half.h"

namespace headcount {
namespace {

int64_t CountOf(const std::vector<Run>& runs) {
  int64_t count = 0;
  for (const Run& run : runs) count += run.count;
  return count;
}

// [i] -> the source's row for row `i`.
std::vector<int64_t> RowsOf(const std::vector<Run>& runs) {
  std::vector<int64_t> rows;
  rows.reserve(static_cast<size_t>(CountOf(runs)));
  for (const Run& run : runs) {
    for (int64_t i = 0; i < run.count; ++i) {
      rows.push_back(run.first + i * run.step);
    }
  }
  return rows;
}

// `count` elements of another type than the source's.
std::byte* Convert(ElementType from, const std::byte* row, const Run& run,
                   ElementType to, std::byte* out) {
  std::vector<float> values(static_cast<size_t>(run.count));
  Dequantize(from, row, run.first, run.count, values.data());
  if (to == ElementType::kF32) {
    std::memcpy(out, values.data(), values.size() * sizeof(float));
    return out + values.size() * sizeof(float);
  }
  CHECK(to == ElementType::kF16);
  for (const float value : values) {
    const uint16_t half = HalfFromFloat(value);
    std::memcpy(out, &half, sizeof(half));
    out += sizeof(half);
  }
  return out;
}

}  // namespace

SlicedTensor WholeTensor(std::string name, const TensorView& source) {
  SlicedTensor whole{.name = std::move(name),
                     .dtype = source.dtype,
                     .source = &source,
                     .rows = {{0, source.shape[0]}}};
  if (source.shape.size() > 1) whole.columns = {{0, source.shape[1]}};
  return whole;
}

bool AreWholeBlocks(const std::vector<Run>& columns, ElementType type) {
  const int64_t block = BlockOf(type).elements;
  return std::all_of(columns.begin(), columns.end(), [&](const Run& run) {
    return run.first % block == 0 && run.count % block == 0;
  });
}

TensorToWrite ToWrite(const SlicedTensor& tensor) {
  TensorToWrite out{.name = tensor.name,
                    .dtype = tensor.dtype,
                    .shape = {CountOf(tensor.rows)}};
  if (!tensor.columns.empty()) out.shape.push_back(CountOf(tensor.columns));
  const int64_t row_bytes = ElementBytes(
      tensor.dtype, tensor.columns.empty() ? 1 : CountOf(tensor.columns));
  if (tensor.source == nullptr) {
    out.read = [row_bytes](int64_t, int64_t count, std::byte* to) {
      std::memset(to, 0, static_cast<size_t>(count * row_bytes));
    };
    return out;
  }
  const TensorView& source = *tensor.source;
  const bool vector = tensor.columns.empty();
  const int64_t width = vector ? 1 : source.shape[1];
  std::vector<Run> columns = tensor.columns;
  if (vector) columns = {{0, 1}};
  out.read = [rows = RowsOf(tensor.rows), columns, width, view = &source,
              dtype = tensor.dtype](int64_t first, int64_t count,
                                    std::byte* to) {
    for (int64_t i = first; i < first + count; ++i) {
      const std::byte* const row =
          view->data.data() +
          ElementBytes(view->dtype, rows[static_cast<size_t>(i)] * width);
      for (const Run& run : columns) {
        if (dtype != view->dtype) {
          to = Convert(view->dtype, row, run, dtype, to);
          continue;
        }
        const int64_t bytes = ElementBytes(dtype, run.count);
        std::memcpy(to, row + ElementBytes(dtype, run.first),
                    static_cast<size_t>(bytes));
        to += bytes;
      }
    }
  };
  return out;
}

}  // namespace headcount
