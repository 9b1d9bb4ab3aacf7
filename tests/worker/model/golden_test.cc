// The forward pass against Hugging Face transformers in float32, on every model of tests/golden.
//
// golden.json (tools/golden) holds, for positions of a few prompts, the oracle's most probable next
// tokens, and the error of transformers' own bfloat16 run: |log-probability - oracle's| over the 20
// most probable tokens of each position, as the largest and as the root of the mean square. Ours
// must be no larger, in both measures, in the prefill form and in the absorbed form; and where the
// oracle's best token leads its second by more than twice the bfloat16 run's largest error, ours
// must be the same token.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/contract/limits.h"
#include "worker/device/reference_device.h"
#include "worker/model/deepseek_model.h"

namespace baleen::worker {
namespace {

constexpr std::int32_t kTop = 20;

struct Token {
  std::int32_t id;
  double logprob;
};

struct Prompt {
  std::vector<std::int32_t> tokens;
  std::size_t prompt_tokens = 0;
  // rows[i]: the distribution after tokens[prompt_tokens - 1 + i], best first.
  std::vector<std::vector<Token>> rows;
};

struct Golden {
  std::string model;
  std::string digest;
  double largest_error = 0.0;
  double rms_error = 0.0;
  std::vector<Prompt> prompts;
};

Golden ReadGolden(const std::filesystem::path& path) {
  std::ifstream stream(path);
  const nlohmann::json json = nlohmann::json::parse(stream);
  Golden golden{.model = json.at("model"), .digest = json.at("digest")};
  golden.largest_error = json.at("bfloat16_error").at("largest");
  golden.rms_error = json.at("bfloat16_error").at("rms");
  for (const nlohmann::json& prompt : json.at("prompts")) {
    Prompt& read = golden.prompts.emplace_back();
    read.tokens = prompt.at("tokens").get<std::vector<std::int32_t>>();
    read.prompt_tokens = prompt.at("prompt_tokens");
    for (const nlohmann::json& row : prompt.at("top")) {
      std::vector<Token>& top = read.rows.emplace_back();
      for (const nlohmann::json& token : row) top.push_back({token.at(0), token.at(1)});
    }
  }
  return golden;
}

// One sequence on a model, with a KV cache of its own.
class Runner {
 public:
  explicit Runner(const std::string& directory) : device_(MakeReferenceDevice(std::byte{0xff})) {
    absl::StatusOr<std::unique_ptr<DeepSeekModel>> model =
        DeepSeekModel::Load({.directory = directory}, *device_);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return;
    model_ = *std::move(model);
    storage_ = *device_->Allocate(kBlocks * model_->info().kv_block_bytes);
  }

  bool loaded() const { return model_ != nullptr; }
  const ModelInfo& info() const { return model_->info(); }

  // Computes tokens [begin, end) of the sequence and the distribution after the last of them.
  SampledToken Step(std::span<const std::int32_t> tokens, std::size_t begin, std::size_t end,
                    AttentionForm form) {
    // Blocks out of order: a wrong block table would not go unseen.
    static constexpr std::uint32_t kTable[kBlocks] = {2, 0, 3, 1};
    const SampleSpec greedy{.logprobs = kTop};
    const SequenceStep step{.tokens = tokens.subspan(begin, end - begin),
                            .position = static_cast<std::uint32_t>(begin),
                            .block_table = kTable,
                            .form = form,
                            .sample = &greedy};
    SampledToken sampled;
    const absl::Status status =
        model_->Step({&step, 1}, {.base = storage_.data(), .blocks = kBlocks}, {&sampled, 1});
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(sampled.status.ok()) << sampled.status;
    return sampled;
  }

  static constexpr std::uint32_t kBlocks = 4;

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeepSeekModel> model_;
  Buffer storage_;
};

// Collects the differences to the oracle.
class Comparison {
 public:
  explicit Comparison(const Golden& golden) : golden_(golden) {}

  void Add(const SampledToken& ours, const std::vector<Token>& oracle, const std::string& where) {
    ASSERT_EQ(ours.top.size(), std::min<std::size_t>(kTop, oracle.size())) << where;
    std::map<std::int32_t, double> known;
    for (const Token& token : oracle) known[token.id] = token.logprob;
    for (const auto& [id, logprob] : ours.top) {
      ASSERT_TRUE(known.contains(id))
          << where << ": token " << id << " is none of the oracle's best " << oracle.size();
      const double difference = logprob - known[id];
      largest_ = std::max(largest_, std::abs(difference));
      squares_ += difference * difference;
      ++count_;
    }
    if (oracle[0].logprob - oracle[1].logprob > 2 * golden_.largest_error) {
      EXPECT_EQ(ours.token, oracle[0].id) << where;
      ++clear_;
    }
    EXPECT_EQ(ours.token, ours.top[0].first) << where;
    EXPECT_FLOAT_EQ(ours.logprob, ours.top[0].second) << where;
  }

  void Check(const std::string& form) const {
    ASSERT_GT(count_, 0u);
    const double rms = std::sqrt(squares_ / static_cast<double>(count_));
    EXPECT_LE(largest_, golden_.largest_error) << golden_.model << ", " << form;
    EXPECT_LE(rms, golden_.rms_error) << golden_.model << ", " << form;
    EXPECT_GT(clear_, 0u) << "no position with a clear best token: the prompts are badly chosen";
    std::printf("%-32s %-9s largest %.4f (bfloat16 %.4f)  rms %.5f (bfloat16 %.5f)\n",
                golden_.model.c_str(), form.c_str(), largest_, golden_.largest_error, rms,
                golden_.rms_error);
  }

 private:
  const Golden& golden_;
  double largest_ = 0.0;
  double squares_ = 0.0;
  std::size_t count_ = 0;
  std::size_t clear_ = 0;
};

std::string Where(std::size_t prompt, std::size_t tokens) {
  return "prompt " + std::to_string(prompt) + " after " + std::to_string(tokens) + " tokens";
}

class GoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenTest()
      : golden_(ReadGolden("tests/golden/" + GetParam() + "/golden.json")),
        runner_(golden_.model) {}

  const Golden golden_;
  Runner runner_;
};

TEST_P(GoldenTest, BelongsToThisCheckpoint) {
  ASSERT_TRUE(runner_.loaded());
  EXPECT_EQ(runner_.info().digest, golden_.digest)
      << "golden.json is of another checkpoint: python tools/golden/golden.py write " << GetParam();
}

// Every position as the last of a prompt.
TEST_P(GoldenTest, PrefillFormIsAsCloseAsBfloat16) {
  ASSERT_TRUE(runner_.loaded());
  Comparison comparison(golden_);
  for (std::size_t p = 0; p < golden_.prompts.size(); ++p) {
    const Prompt& prompt = golden_.prompts[p];
    for (std::size_t i = 0; i < prompt.rows.size(); ++i) {
      const std::size_t end = prompt.prompt_tokens + i;
      comparison.Add(runner_.Step(prompt.tokens, 0, end, AttentionForm::kPrefill), prompt.rows[i],
                     Where(p, end));
    }
  }
  comparison.Check("prefill");
}

// The prompt in prefill form, then token after token in absorbed form.
TEST_P(GoldenTest, AbsorbedFormIsAsCloseAsBfloat16) {
  ASSERT_TRUE(runner_.loaded());
  Comparison comparison(golden_);
  for (std::size_t p = 0; p < golden_.prompts.size(); ++p) {
    const Prompt& prompt = golden_.prompts[p];
    runner_.Step(prompt.tokens, 0, prompt.prompt_tokens, AttentionForm::kPrefill);
    for (std::size_t i = 1; i < prompt.rows.size(); ++i) {
      const std::size_t end = prompt.prompt_tokens + i;
      comparison.Add(runner_.Step(prompt.tokens, end - 1, end, AttentionForm::kAbsorbed),
                     prompt.rows[i], Where(p, end));
    }
  }
  comparison.Check("absorbed");
}

// The two forms of the same position differ by no more than the bfloat16 run from the oracle.
TEST_P(GoldenTest, FormsAgree) {
  ASSERT_TRUE(runner_.loaded());
  for (std::size_t p = 0; p < golden_.prompts.size(); ++p) {
    const Prompt& prompt = golden_.prompts[p];
    const std::size_t end = prompt.tokens.size();
    const SampledToken prefill = runner_.Step(prompt.tokens, 0, end, AttentionForm::kPrefill);
    runner_.Step(prompt.tokens, 0, prompt.prompt_tokens, AttentionForm::kPrefill);
    const SampledToken absorbed =
        runner_.Step(prompt.tokens, prompt.prompt_tokens, end, AttentionForm::kAbsorbed);
    std::map<std::int32_t, float> by_id(prefill.top.begin(), prefill.top.end());
    for (const auto& [id, logprob] : absorbed.top) {
      if (!by_id.contains(id)) continue;  // the 20th place may change hands
      EXPECT_NEAR(logprob, by_id[id], golden_.largest_error)
          << golden_.model << ", prompt " << p << ", token " << id;
    }
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  std::error_code error;  // no such folder: no names, and the test below fails
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden", error)) {
    if (std::filesystem::exists(entry.path() / "golden.json"))
      names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, ::testing::ValuesIn(Names()),
                         [](const auto& parameter) { return parameter.param; });

// What the issue of this suite promises to cover; a model that goes missing would otherwise pass
// unseen.
TEST(GoldenModels, CoverWhatTheServedModelsVaryIn) {
  EXPECT_THAT(Names(),
              testing::IsSupersetOf({"nano", "v2_grouped_fp8_tied", "v2_lite", "v3_dense",
                                     "v3_float32", "v3_fp8_mtp", "v3_moonlight", "v3_q_lora"}));
}

}  // namespace
}  // namespace baleen::worker
