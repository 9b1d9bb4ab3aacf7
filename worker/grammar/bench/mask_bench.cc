// Decode steps of the quick-start model with 32 sequences that must write JSON of a schema, against
// the same steps without. Both are taken in turns. Run from the repository root.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "worker/device/reference_device.h"
#include "worker/grammar/grammar_pool.h"
#include "worker/grammar/model_grammars.h"
#include "worker/model/deepseek_model.h"

namespace baleen::worker {
namespace {

constexpr char kModel[] = "models/nano";
constexpr std::uint32_t kSequences = 32;
constexpr std::uint32_t kPosition = 100;
constexpr std::uint32_t kBlocksOfSequence = 2;
// Taken in turns of so many steps.
constexpr int kTurns = 15;
constexpr int kStepsOfTurn = 25;

// Replies that do not end while they are measured.
constexpr char kSchema[] =
    R"({"type":"array","minItems":1000,"items":{"type":"object","properties":{
  "name":{"type":"string","maxLength":24},"age":{"type":"integer","minimum":0,"maximum":150},
  "email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string"}},
  "city":{"enum":["Paris","London","Berlin"]}},"required":["name","age","city"],
  "additionalProperties":false}})";

double Seconds(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Timing {
  std::vector<double> wall;  // seconds of each step, from its tokens to the next
  double cores = 0;          // seconds of all threads

  double median() {
    std::sort(wall.begin(), wall.end());
    return wall[wall.size() / 2];
  }
};

// The model and a batch of one token of each sequence.
class Batch {
 public:
  Batch() : device_(MakeReferenceDevice()), tokens_(kSequences, 5), sampled_(kSequences) {
    const StepLimits limits{.tokens_max = kSequences, .sequences_max = kSequences};
    model_ = DeepSeekModel::Load({.directory = kModel, .limits = limits}, *device_).value();
    cache_ =
        device_->Allocate(kSequences * kBlocksOfSequence * model_->info().kv_block_bytes).value();
    for (std::uint32_t i = 0; i < kSequences; ++i) {
      tables_.push_back({i * kBlocksOfSequence, i * kBlocksOfSequence + 1});
      specs_.push_back({.temperature = 1.0f, .seed = i});
    }
  }

  const ModelInfo& info() const { return model_->info(); }

  // `grammars` is empty, or has one for each sequence.
  void Step(const std::vector<std::unique_ptr<ReplyGrammar>>& grammars, Timing& timing) {
    const double wall = Seconds(CLOCK_MONOTONIC);
    const double cores = Seconds(CLOCK_PROCESS_CPUTIME_ID);
    std::vector<SequenceStep> steps(kSequences);
    for (std::uint32_t i = 0; i < kSequences; ++i) {
      steps[i] = {.tokens = {&tokens_[i], 1},
                  .position = kPosition,
                  .block_table = tables_[i],
                  .form = AttentionForm::kAbsorbed,
                  .sample = &specs_[i],
                  .mask = grammars.empty() ? nullptr : grammars[i]->mask(),
                  .request = i};
      ++specs_[i].seed;
    }
    const absl::Status status = model_->Step(
        steps, {.base = cache_.data(), .blocks = kSequences * kBlocksOfSequence}, {}, sampled_);
    BALEEN_CHECK(status.ok(), "a step of the benchmark succeeds");
    for (std::uint32_t i = 0; i < kSequences; ++i) {
      BALEEN_CHECK(sampled_[i].status.ok(), "a sequence of the benchmark has a token");
      tokens_[i] = sampled_[i].token;
      if (!grammars.empty()) grammars[i]->Accept(tokens_[i]);
    }
    timing.wall.push_back(Seconds(CLOCK_MONOTONIC) - wall);
    timing.cores += Seconds(CLOCK_PROCESS_CPUTIME_ID) - cores;
  }

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeepSeekModel> model_;
  Buffer cache_;
  std::vector<std::vector<std::uint32_t>> tables_;
  std::vector<SampleSpec> specs_;
  std::vector<std::int32_t> tokens_;
  std::vector<SampledToken> sampled_;
};

void Run() {
  Batch batch;
  ModelGrammars compiler({.model_directory = kModel,
                          .vocabulary = {.size = batch.info().vocabulary_size,
                                         .eos_token_ids = batch.info().eos_token_ids}});
  GrammarPool pool({}, SystemClock(), compiler);
  std::vector<std::unique_ptr<ReplyGrammar>> grammars;
  for (std::uint32_t i = 0; i < kSequences; ++i) {
    grammars.push_back(pool.Begin({text::GrammarKind::kJsonSchema, kSchema}, std::nullopt));
  }
  for (const auto& grammar : grammars) {
    while (!grammar->Prepared().value()) std::this_thread::yield();
  }
  Timing warm_up;
  Timing plain;
  Timing constrained;
  for (int i = 0; i < 10; ++i) batch.Step(grammars, warm_up);
  for (int turn = 0; turn < kTurns; ++turn) {
    for (int i = 0; i < kStepsOfTurn; ++i) batch.Step({}, plain);
    for (int i = 0; i < kStepsOfTurn; ++i) batch.Step(grammars, constrained);
  }
  const double wall = constrained.median() / plain.median() - 1;
  const double cores = constrained.cores / plain.cores - 1;
  std::printf(
      "%u sequences  step %.2f ms, with masks %.2f ms: %+.1f %%  core time %.2f ms, %+.1f %%\n",
      kSequences, plain.median() * 1e3, constrained.median() * 1e3, wall * 100,
      plain.cores * 1e3 / (kTurns * kStepsOfTurn), cores * 100);
}

}  // namespace
}  // namespace baleen::worker

int main() {
  baleen::worker::Run();
  return 0;
}
