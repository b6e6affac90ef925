// What becomes of requests when the device fails for good.
#include <memory>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/engine_fixture.h"
#include "tests/unit/model/recording_backend.h"

namespace headcount {
namespace {

// Fails once it has sampled so often; results since then are no tokens.
class FailingBackend final : public RecordingBackend {
 public:
  explicit FailingBackend(int samples)
      : RecordingBackend(CreateCpuBackend({})), left_(samples) {}

  absl::Status status() const override {
    return left_ >= 0 ? absl::OkStatus()
                      : absl::UnavailableError("cuda:0: it is broken");
  }
  std::vector<SampleResult> Sample(const float* logits, int64_t vocab,
                                   absl::Span<const SampleRow> rows) override {
    if (--left_ < 0) return std::vector<SampleResult>(rows.size());
    return RecordingBackend::Sample(logits, vocab, rows);
  }

 private:
  int left_;
};

TEST(EngineFailureTest, EverybodyHearsThatTheDeviceIsLost) {
  const SystemClock clock;
  const EngineOptions options{.kv_pool_bytes = 8 * kSlab, .step_tokens = 64};
  auto backend = std::make_unique<FailingBackend>(5);
  std::vector<EngineModel> models;
  models.push_back(LoadModel({.path = MailroomPath()}, options, backend.get()));
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(options, std::move(backend), std::move(models), &clock);
  ASSERT_TRUE(engine.ok()) << engine.status();
  std::vector<absl::Status> failures;
  (*engine)->SetFailureHandler(
      [](void* context, const absl::Status& status) {
        static_cast<std::vector<absl::Status>*>(context)->push_back(status);
      },
      &failures);
  const std::vector<Heard> heard = RunAll(
      engine->get(),
      {MakeRequest(MailTokens(0, 10), 50), MakeRequest(MailTokens(5, 20), 50)});
  for (const Heard& each : heard) {
    EXPECT_EQ(each.ending().cause, EndCause::kError);
    EXPECT_EQ(each.ending().status,
              absl::UnavailableError("cuda:0: it is broken"));
    EXPECT_EQ(each.tokens.size(), 5u) << "those of before";
    EXPECT_FALSE(each.late);
  }
  EXPECT_EQ(failures.size(), 1u);
  EXPECT_TRUE(absl::IsUnavailable(
      (*engine)
          ->Submit(MakeRequest({1}, 1), std::make_shared<Recorder>())
          .status()));
  EXPECT_EQ((*engine)->Snapshot().step_began, absl::InfiniteFuture());
}

}  // namespace
}  // namespace headcount
