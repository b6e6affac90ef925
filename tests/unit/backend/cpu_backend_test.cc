#include "backend/cpu/cpu_backend.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

TEST(CpuBackendTest, TheNameTellsTargetAndThreads) {
  EXPECT_THAT(CreateCpuBackend({.threads = 3})->name(), HasSubstr("3 threads"));
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 1});
  EXPECT_THAT(backend->name(), HasSubstr("1 thread)"));
  for (const int64_t target : SimdTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    EXPECT_THAT(backend->name(), HasSubstr(hwy::TargetName(target)));
  }
  hwy::SetSupportedTargetsForTest(0);
}

int64_t ResidentPages(void* data, int64_t bytes) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  std::vector<unsigned char> resident(
      static_cast<size_t>((bytes + page - 1) / page));
  EXPECT_EQ(mincore(data, static_cast<size_t>(bytes), resident.data()), 0);
  int64_t count = 0;
  for (const unsigned char flags : resident) count += flags & 1;
  return count;
}

TEST(CpuBackendTest, PagesOfALargeBufferAreResidentOnlyWhereWritten) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 1});
  const int64_t bytes = int64_t{1} << 30;
  const auto buffer = backend->Allocate(bytes);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ((*buffer)->bytes(), bytes);
  EXPECT_EQ(ResidentPages((*buffer)->data(), bytes), 0);
  static_cast<char*>((*buffer)->data())[bytes / 2] = 1;
  const int64_t resident = ResidentPages((*buffer)->data(), bytes);
  EXPECT_GE(resident, 1);
  EXPECT_LE(resident, (int64_t{2} << 20) / sysconf(_SC_PAGESIZE));
}

TEST(CpuBackendTest, ABufferThatDoesNotFitIsResourceExhausted) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 1});
  const auto buffer = backend->Allocate(int64_t{1} << 60);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(buffer.status().message(), HasSubstr("1152921504606846976"));
}

TEST(CpuBackendTest, AnEmptyBufferHasAnAddress) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 1});
  const auto buffer = backend->Allocate(0);
  ASSERT_TRUE(buffer.ok());
  EXPECT_NE((*buffer)->data(), nullptr);
  EXPECT_EQ((*buffer)->bytes(), 0);
}

TEST(CpuBackendTest, CopiesThereAndBack) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 1});
  const auto buffer = backend->Allocate(16);
  ASSERT_TRUE(buffer.ok());
  const char text[16] = "fifteen letters";
  backend->CopyToDevice(text, 16, (*buffer)->data());
  char back[16];
  backend->CopyToHost((*buffer)->data(), 16, back);
  EXPECT_STREQ(back, text);
}

TEST(CpuBackendTest, EmbedReadsTheTokensOfTheStep) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  TestRandom random(1);
  const std::vector<float> table = RandomFloats(random, 100 * 24);
  MatrixSource source;
  source.rows = 100;
  source.cols = 24;
  source.pieces.push_back(
      {.data = reinterpret_cast<const std::byte*>(table.data()),
       .stride = 24,
       .rows = 100,
       .cols = 24});
  const auto matrix = backend->Pack(source, Precision::kFast);
  ASSERT_TRUE(matrix.ok());
  const std::vector<int32_t> tokens = {99, 0, 50};
  const std::vector<int32_t> positions = {0, 1, 2};
  StepSequence sequence;
  sequence.num_rows = 3;
  StepInputs inputs;
  inputs.tokens = tokens;
  inputs.positions = positions;
  inputs.sequences = absl::MakeConstSpan(&sequence, 1);
  backend->BeginStep(inputs, Rope());
  std::vector<float> out(3 * 24);
  backend->Embed(**matrix, out.data());
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(
        std::memcmp(&out[i * 24], &table[static_cast<size_t>(tokens[i]) * 24],
                    24 * sizeof(float)),
        0);
  }
}

TEST(CpuBackendTest, SamplesTheRowsAskedForInTheirOrder) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 3});
  const std::vector<float> logits = {0, 1, 5, 0, 7, 1};
  std::vector<SampleRow> rows(3);
  rows[0].logits_row = 1;
  rows[1].logits_row = 0;
  rows[2].logits_row = 1;
  const std::vector<SampleResult> results =
      backend->Sample(logits.data(), 3, rows);
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].token, 1);
  EXPECT_EQ(results[1].token, 2);
  EXPECT_EQ(results[2].token, 1);
}

}  // namespace
}  // namespace headcount
