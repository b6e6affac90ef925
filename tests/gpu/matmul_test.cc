// Products with packed weights, against a sum in double precision of the
// weights that the CPU backend has at rest.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/packed_weights.h"
#include "backend/cuda/row_kernels.h"
#include "base/half.h"
#include "gtest/gtest.h"
#include "tests/gpu/device.h"
#include "tests/unit/backend/quantized_products.h"

namespace headcount::gpu {
namespace {

using cuda::PackedLayout;

// A matrix on the device, packed two panels at a time.
class DeviceMatrix {
 public:
  explicit DeviceMatrix(const MatrixSource& source,
                        Precision precision = Precision::kFast)
      : layout_(cuda::LayoutFor(source, precision)), weights_(Packed(source)) {}

  const PackedLayout& layout() const { return layout_; }
  const std::byte* weights() const { return weights_.data(); }

 private:
  std::vector<std::byte> Packed(const MatrixSource& source) const {
    std::vector<std::byte> all;
    for (int64_t panel = 0; panel < layout_.panels(); panel += 2) {
      const int64_t count = std::min<int64_t>(2, layout_.panels() - panel);
      std::vector<std::byte> part(Index(count * layout_.panel_bytes()),
                                  std::byte{0xFF});
      cuda::PackPanels(source, layout_, panel, count, part.data());
      all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_EQ(static_cast<int64_t>(all.size()), layout_.bytes());
    return all;
  }

  PackedLayout layout_;
  DeviceArray<std::byte> weights_;
};

struct Operands {
  std::vector<float> x = {};
  std::vector<float> bias = {};    // empty: none
  std::vector<float> before = {};  // empty: the product is stored
};

// How many rows are multiplied at once, and on how large a device: which
// kernels do it.
struct Company {
  int32_t rows = 0;
  int multiprocessors = 1;
};
constexpr int kManyMultiprocessors = 1000;  // more than there are tiles

std::vector<float> Product(const DeviceMatrix& w, Company company,
                           const Operands& operands) {
  const cuda::MatMulPlan plan =
      cuda::PlanMatMul(w.layout(), company.rows, company.multiprocessors);
  const DeviceArray<float> x(operands.x);
  const DeviceArray<float> bias(operands.bias.empty() ? std::vector<float>{0}
                                                      : operands.bias);
  const size_t count = Index(company.rows * w.layout().rows);
  const DeviceArray<float> out =
      operands.before.empty()
          ? DeviceArray<float>(count)
          : DeviceArray<float>(std::vector<float>(
                operands.before.begin(), operands.before.begin() + count));
  const DeviceArray<std::byte> split(Index(plan.split_bytes));
  const cuda::MatMulParams params{
      .weights = w.weights(),
      .layout = w.layout(),
      .x = x.data(),
      .bias = operands.bias.empty() ? nullptr : bias.data(),
      .out = out.data(),
      .rows = company.rows,
      .add = !operands.before.empty(),
      .split = split.data()};
  TheDevice().Launch(plan.split.kernel, plan.split.grid, params);
  TheDevice().Launch(plan.product.kernel, plan.product.grid, params);
  return out.Read();
}

// What rounding may add up to: of a sum in float32 whose terms are as large as
// scale * 15 and the minimum, and of splitting x.
double Tolerance(const PackedMatrix& w, double magnitude) {
  return magnitude * (w.dtype() == ElementType::kF32 ? 0x1p-20 : 0x1p-16);
}

void ExpectIsProduct(const PackedMatrix& w, const Operands& operands,
                     const std::vector<float>& out) {
  const std::vector<float> weights = AtRest(w);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / w.rows();
    const int64_t output = static_cast<int64_t>(i) % w.rows();
    double sum = operands.bias.empty() ? 0 : operands.bias[Index(output)];
    if (!operands.before.empty()) sum += operands.before[i];
    double magnitude = std::abs(sum);
    for (int64_t k = 0; k < w.cols(); ++k) {
      const double x = operands.x[Index(row * w.cols() + k)];
      sum += x * weights[Index(output * w.cols() + k)];
      magnitude += std::abs(x);  // weights are at most 1 or so
    }
    ASSERT_NEAR(out[i], sum, Tolerance(w, magnitude))
        << "row " << row << ", output " << output << " of " << w.rows() << " x "
        << w.cols();
  }
}

// A row in company, and alone: what one kernel for few rows does, with warps
// that share the columns, and those for more.
constexpr Company kCompanies[] = {
    {70}, {70, kManyMultiprocessors}, {33}, {17}, {9}, {3}, {1}};

// Products of every number of rows, which agree to the bit on the rows that
// they share. The first is the largest.
void ExpectProducts(const MatrixSource& source,
                    Precision precision = Precision::kFast,
                    absl::Span<const Company> companies = kCompanies) {
  TestRandom random(7);
  const auto reference = PackOrDie(source, precision);
  const DeviceMatrix w(source, precision);
  ASSERT_EQ(w.layout().dtype, reference->dtype());
  const int32_t most = companies[0].rows;
  Operands operands{.x = RandomFloats(random, most * source.cols),
                    .bias = RandomFloats(random, source.rows)};
  const std::vector<float> all = Product(w, companies[0], operands);
  ExpectIsProduct(*reference, operands, all);
  for (const Company& company : companies.subspan(1)) {
    Operands some = operands;
    some.x.resize(Index(company.rows * source.cols));
    const std::vector<float> out = Product(w, company, some);
    ASSERT_EQ(out.size(), Index(company.rows * source.rows));
    for (size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]),
                std::bit_cast<uint32_t>(all[i]))
          << i << " of " << company.rows << " rows";
    }
  }
  operands.before = RandomFloats(random, most * source.rows);
  for (const Company& company : {companies[0], companies.back()}) {
    operands.x.resize(Index(company.rows * source.cols));
    ExpectIsProduct(*reference, operands, Product(w, company, operands));
    operands.bias.clear();
  }
}

// A matrix of floats of `dtype`, as a file has it.
std::vector<std::byte> FloatBytes(ElementType dtype, int64_t count) {
  TestRandom random(11);
  std::vector<std::byte> bytes(Index(ElementBytes(dtype, count)));
  for (int64_t i = 0; i < count; ++i) {
    const float value = RandomFloat(random);
    const uint16_t half = dtype == ElementType::kF16 ? HalfFromFloat(value)
                                                     : Bfloat16FromFloat(value);
    const auto size = Index(ElementBytes(dtype, 1));
    std::memcpy(
        bytes.data() + Index(i) * size,
        dtype == ElementType::kF32 ? static_cast<const void*>(&value) : &half,
        size);
  }
  return bytes;
}

MatrixSource WholeOf(const std::vector<std::byte>& bytes, ElementType dtype,
                     int64_t rows, int64_t cols) {
  return {.rows = rows,
          .cols = cols,
          .pieces = {{.data = bytes.data(),
                      .dtype = dtype,
                      .stride = cols,
                      .rows = rows,
                      .cols = cols}}};
}

constexpr ElementType kFloats[] = {ElementType::kF32, ElementType::kF16,
                                   ElementType::kBf16};

TEST(MatMulKernelTest, MultipliesFloatsOfAnySize) {
  struct Size {
    int64_t rows, cols;
  };
  for (const ElementType dtype : kFloats) {
    for (const Size size : {Size{1, 5}, Size{33, 100}, Size{70, 1056}}) {
      SCOPED_TRACE(absl::StrCat(std::string(ElementTypeName(dtype)), " ",
                                size.rows, " x ", size.cols));
      const auto bytes = FloatBytes(dtype, size.rows * size.cols);
      ExpectProducts(WholeOf(bytes, dtype, size.rows, size.cols));
    }
  }
}

// Every kernel, at the edges of its tiles: 128 x 128, 128 outputs and 64 rows,
// 64 x 64, 64 or 32 outputs and 32 rows, 16 and 8 rows.
constexpr Company kAllCompanies[] = {{300},
                                     {129},
                                     {129, kManyMultiprocessors},
                                     {128},
                                     {100, kManyMultiprocessors},
                                     {65},
                                     {64},
                                     {33},
                                     {33, kManyMultiprocessors},
                                     {32},
                                     {17, kManyMultiprocessors},
                                     {16},
                                     {9},
                                     {8},
                                     {1}};

// More stages than a sum has classes, the last of them cut off.
TEST(MatMulKernelTest, ARowHasTheSameBitsInAnyCompany) {
  constexpr int64_t kOutputs = 70;
  for (const ElementType dtype : {ElementType::kF16, ElementType::kBf16}) {
    SCOPED_TRACE(ElementTypeName(dtype));
    constexpr int64_t kCols = 300;
    const auto bytes = FloatBytes(dtype, kOutputs * kCols);
    ExpectProducts(WholeOf(bytes, dtype, kOutputs, kCols), Precision::kFast,
                   kAllCompanies);
  }
  TestRandom random(12);
  for (const ElementType type : {ElementType::kQ8_0, ElementType::kQ4_1}) {
    SCOPED_TRACE(ElementTypeName(type));
    const Tensor tensor(random, type, kOutputs, 1184);
    ExpectProducts(Whole(tensor), Precision::kFast, kAllCompanies);
  }
}

// Tiles in bands: more rows of tiles than one band has, and several columns.
TEST(MatMulKernelTest, TilesCoverRowsAndOutputs) {
  constexpr int64_t kOutputs = 200;
  constexpr int64_t kCols = 20;
  const auto bytes = FloatBytes(ElementType::kBf16, kOutputs * kCols);
  ExpectProducts(WholeOf(bytes, ElementType::kBf16, kOutputs, kCols),
                 Precision::kFast,
                 {{1300}, {1300, kManyMultiprocessors}, {1025}, {3}});
}

TEST(MatMulKernelTest, MultipliesEveryQuantisedType) {
  TestRandom random(2);
  for (const ElementType type : kTypes) {
    SCOPED_TRACE(ElementTypeName(type));
    const Tensor tensor(random, type, 35, 768);
    ExpectProducts(Whole(tensor));
  }
}

TEST(MatMulKernelTest, ExactPrecisionIsInFloat32) {
  TestRandom random(3);
  const Tensor tensor(random, ElementType::kQ4_K, 18, 256);
  ExpectProducts(Whole(tensor), Precision::kExact);
}

TEST(MatMulKernelTest, TakesColumnsThatCutBlocks) {
  TestRandom random(4);
  const Tensor tensor(random, ElementType::kQ4_0, 20, 256);
  MatrixSource source;
  source.rows = 20;
  source.cols = 88;
  source.pieces.push_back(tensor.Columns(16, 48));
  source.pieces.push_back(tensor.Columns(200, 40));
  source.pieces[1].col = 48;
  ExpectProducts(source);
}

// 288 columns are not a whole number of stages.
TEST(MatMulKernelTest, TakesColumnsBetweenBlocks) {
  TestRandom random(5);
  const Tensor tensor(random, ElementType::kQ4_K, 20, 512);
  MatrixSource source;
  source.rows = 20;
  source.cols = 288;
  source.pieces.push_back(tensor.Columns(32, 64));
  source.pieces.push_back(tensor.Columns(256, 224));
  source.pieces[1].col = 64;
  ExpectProducts(source);
}

// Pieces of unlike floats are float32 at rest.
TEST(MatMulKernelTest, TakesPiecesOfUnlikeFloats) {
  const auto halves = FloatBytes(ElementType::kF16, 7 * 40);
  const auto floats = FloatBytes(ElementType::kF32, 12 * 40);
  MatrixSource source = WholeOf(halves, ElementType::kF16, 7, 40);
  source.pieces.push_back(
      WholeOf(floats, ElementType::kF32, 12, 40).pieces.front());
  source.pieces[1].row = 7;
  source.rows = 19;
  ExpectProducts(source);
}

// Halves that are no bf16, subnormal ones among them, keep all their bits.
TEST(MatMulKernelTest, HalvesAreExact) {
  std::vector<uint16_t> halves;
  for (int i = 0; i < 32 * 16; ++i) {
    halves.push_back(static_cast<uint16_t>(i * 61));  // up to 15.6
  }
  std::vector<std::byte> bytes(halves.size() * 2);
  std::memcpy(bytes.data(), halves.data(), bytes.size());
  const DeviceMatrix w(WholeOf(bytes, ElementType::kF16, 16, 32));
  std::vector<float> unit(32 * 32);  // row i picks column i
  for (size_t i = 0; i < 32; ++i) unit[i * 33] = 1;
  const std::vector<float> out = Product(w, {32}, {.x = unit});
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(out[i], FloatFromHalf(halves[i % 16 * 32 + i / 16])) << i;
  }
}

// A number beyond a half's range is no harm to others in its row.
TEST(MatMulKernelTest, TakesLargeInputs) {
  TestRandom random(6);
  const Tensor tensor(random, ElementType::kQ8_0, 16, 64);
  const auto reference = PackOrDie(Whole(tensor));
  Operands operands{.x = RandomFloats(random, 64)};
  operands.x[3] = 1e6f;
  operands.x[40] = -3e-9f;
  ExpectIsProduct(*reference, operands,
                  Product(DeviceMatrix(Whole(tensor)), {1}, operands));
}

// Rows of the table, as the CPU backend has them at rest.
void ExpectRows(const MatrixSource& source) {
  const auto reference = PackOrDie(source);
  const DeviceMatrix table(source);
  const std::vector<int32_t> tokens = {static_cast<int32_t>(source.rows - 1), 0,
                                       9, 9};
  const DeviceArray<int32_t> device_tokens(tokens);
  const DeviceArray<float> out(tokens.size() * Index(source.cols));
  const auto kernel = cuda::FindEmbedKernel();
  Launch(kernel.kernel, static_cast<int>(tokens.size()), kernel.threads,
         kernel.shared_bytes,
         cuda::EmbedParams{.weights = table.weights(),
                           .layout = table.layout(),
                           .tokens = device_tokens.data(),
                           .out = out.data(),
                           .rows = static_cast<int32_t>(tokens.size())});
  const std::vector<float> rows = out.Read();
  std::vector<float> expected(Index(source.cols));
  for (size_t i = 0; i < tokens.size(); ++i) {
    reference->CopyRow(tokens[i], expected.data());
    for (size_t col = 0; col < expected.size(); ++col) {
      // Where there is a minimum, a GPU rounds once and not twice.
      ASSERT_NEAR(rows[i * expected.size() + col], expected[col],
                  reference->dtype() == ElementType::kQ4_1 ? 0x1p-22 : 0)
          << "token " << tokens[i] << ", column " << col;
    }
  }
}

TEST(EmbedKernelTest, CopiesRowsOfEveryDtypeAtRest) {
  for (const ElementType dtype : kFloats) {
    SCOPED_TRACE(ElementTypeName(dtype));
    const auto bytes = FloatBytes(dtype, 37 * 300);
    ExpectRows(WholeOf(bytes, dtype, 37, 300));
  }
  TestRandom random(8);
  for (const ElementType type : kTypes) {
    SCOPED_TRACE(ElementTypeName(type));
    const Tensor tensor(random, type, 37, 768);
    ExpectRows(Whole(tensor));
  }
}

}  // namespace
}  // namespace headcount::gpu
