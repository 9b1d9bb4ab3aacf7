// Loading a share of a model: how much memory it takes, and what is seen of it.
#include <gmock/gmock.h>
#include <malloc.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "gtest/gtest.h"
#include "worker/device/reference_device.h"
#include "worker/model/deepseek_model.h"
#include "worker/model/loading/load_progress.h"

namespace baleen::worker {
namespace {

using testing::HasSubstr;

// A checkpoint of two MoE layers, mostly experts: 101 MB in bf16, where packed and stored sizes are
// the same, in a file for each layer and one for the rest.
class LargeCheckpoint {
 public:
  static constexpr std::uint64_t kExperts = 32;
  static constexpr std::uint64_t kExpertBytes = 3 * 1024 * 256 * 2;

  LargeCheckpoint() {
    std::string pattern = (std::filesystem::temp_directory_path() / "baleen_XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    std::ofstream(directory_ / "config.json") << R"({"model_type": "deepseek_v3",
      "vocab_size": 64, "hidden_size": 256, "intermediate_size": 64, "moe_intermediate_size": 1024,
      "num_hidden_layers": 2, "num_nextn_predict_layers": 0, "num_attention_heads": 2,
      "num_key_value_heads": 2, "q_lora_rank": null, "kv_lora_rank": 32, "qk_nope_head_dim": 32,
      "qk_rope_head_dim": 32, "v_head_dim": 32, "n_routed_experts": 32, "n_shared_experts": 0,
      "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
      "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.0,
      "first_k_dense_replace": 0, "hidden_act": "silu", "rms_norm_eps": 1e-6,
      "max_position_embeddings": 128, "rope_theta": 10000, "eos_token_id": 1,
      "attention_bias": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";
    WriteRest();
    for (const std::string layer : {"0", "1"}) WriteExperts(layer);
    std::ofstream(directory_ / "model.safetensors.index.json")
        << R"({"weight_map": {)" << weight_map_.substr(1) << "}}";
  }
  ~LargeCheckpoint() { std::filesystem::remove_all(directory_); }

  std::string path() const { return directory_.string(); }

 private:
  using Shape = std::array<std::uint64_t, 2>;  // second 0: a vector

  void WriteRest() {
    Open("rest.safetensors");
    Add("model.embed_tokens.weight", {64, 256});
    Add("lm_head.weight", {64, 256});
    Add("model.norm.weight", {256, 0});
    for (const std::string layer : {"0", "1"}) {
      const std::string prefix = "model.layers." + layer + ".";
      Add(prefix + "input_layernorm.weight", {256, 0});
      Add(prefix + "post_attention_layernorm.weight", {256, 0});
      Add(prefix + "self_attn.q_proj.weight", {128, 256});
      Add(prefix + "self_attn.kv_a_proj_with_mqa.weight", {64, 256});
      Add(prefix + "self_attn.kv_a_layernorm.weight", {32, 0});
      Add(prefix + "self_attn.kv_b_proj.weight", {128, 32});
      Add(prefix + "self_attn.o_proj.weight", {256, 64});
      Add(prefix + "mlp.gate.weight", {32, 256});
      Add(prefix + "mlp.gate.e_score_correction_bias", {32, 0});
    }
    Close();
  }

  void WriteExperts(const std::string& layer) {
    Open("experts-" + layer + ".safetensors");
    for (std::uint64_t expert = 0; expert < kExperts; ++expert) {
      const std::string prefix =
          "model.layers." + layer + ".mlp.experts." + std::to_string(expert) + ".";
      Add(prefix + "gate_proj.weight", {1024, 256});
      Add(prefix + "up_proj.weight", {1024, 256});
      Add(prefix + "down_proj.weight", {256, 1024});
    }
    Close();
  }

  void Open(const std::string& file) {
    file_ = file;
    header_.clear();
    bytes_ = 0;
  }

  void Add(const std::string& name, const Shape& shape) {
    const std::uint64_t end = bytes_ + shape[0] * std::max<std::uint64_t>(shape[1], 1) * 2;
    header_ += ",\"" + name + "\":{\"dtype\":\"BF16\",\"shape\":[" + std::to_string(shape[0]) +
               (shape[1] > 0 ? "," + std::to_string(shape[1]) : "") + "],\"data_offsets\":[" +
               std::to_string(bytes_) + "," + std::to_string(end) + "]}";
    weight_map_ += ",\"" + name + "\":\"" + file_ + "\"";
    bytes_ = end;
  }

  void Close() {
    header_[0] = '{';
    header_ += '}';
    header_.resize((header_.size() + 7) / 8 * 8, ' ');
    std::ofstream file(directory_ / file_, std::ios::binary);
    const std::uint64_t length = header_.size();
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file << header_;
    const std::vector<char> page(4096, '\x3c');  // small numbers
    for (std::uint64_t left = bytes_; left > 0;) {
      const std::uint64_t count = std::min<std::uint64_t>(left, page.size());
      file.write(page.data(), static_cast<std::streamsize>(count));
      left -= count;
    }
  }

  std::filesystem::path directory_;
  std::string weight_map_;
  std::string file_;
  std::string header_;
  std::uint64_t bytes_ = 0;
};

std::uint64_t FieldOf(const char* file, const std::string& field) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(field)) return std::stoull(line.substr(field.size())) * 1024;
  }
  return 0;
}

std::uint64_t Resident() { return FieldOf("/proc/self/smaps_rollup", "Rss:"); }

// What the model adds to the memory of its process.
struct Memory {
  std::uint64_t peak = 0;
  std::uint64_t at_rest = 0;
  std::uint64_t moved = 0;  // after all experts have moved
};

// In a process of its own. The baseline has the code and what the parent has left there.
Memory LoadRank(const std::string& directory, const ExpertShard& shard) {
  if (!DeepSeekModel::Load({.directory = "tests/golden/v3_moonlight"}, *MakeReferenceDevice())
           .ok()) {
    return {};
  }
  malloc_trim(0);
  const std::uint64_t before = Resident();
  std::ofstream("/proc/self/clear_refs") << 5;  // VmHWM begins again
  const std::unique_ptr<Device> device = MakeReferenceDevice();
  auto model = DeepSeekModel::Load(
      {.directory = directory, .limits = {.tokens_max = 8, .sequences_max = 2}, .shard = shard},
      *device);
  if (!model.ok()) return {};
  Memory memory{.peak = FieldOf("/proc/self/status", "VmHWM:") - before,
                .at_rest = Resident() - before};
  for (std::size_t layer = 0; layer < shard.placement.layers.size(); ++layer) {
    std::vector<std::int32_t> experts = shard.placement.layers[layer].expert_of_slot();
    std::ranges::reverse(experts);
    auto reversed = LayerPlacement::Make(shard.placement.shape, std::move(experts));
    if (!(*model)->Prepare(static_cast<std::int32_t>(layer), *std::move(reversed)).ok()) return {};
    (*model)->Adopt();
  }
  memory.moved = Resident() - before;
  return memory;
}

Memory InProcess(const std::function<Memory()>& work) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const Memory memory = work();
    const bool written = write(ends[1], &memory, sizeof(memory)) == sizeof(memory);
    _exit(written ? 0 : 1);
  }
  Memory memory;
  close(ends[1]);
  EXPECT_EQ(read(ends[0], &memory, sizeof(memory)), sizeof(memory));
  close(ends[0]);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  return memory;
}

TEST(Loading, RanksOfAGroupHoldOneCopyOfTheExperts) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "memory under a sanitizer says nothing";
#endif
  constexpr std::int32_t kRanks = 4;
  const LargeCheckpoint checkpoint;
  const auto directory = ModelDirectory::Open({.directory = checkpoint.path()}).value();
  const std::uint64_t experts = 2 * LargeCheckpoint::kExperts * LargeCheckpoint::kExpertBytes;
  const std::uint64_t replicated = directory->info().checkpoint_bytes - experts;
  const ModelPlacement placement =
      ContiguousModelPlacement(directory->config(), PlacementShapeOf(directory->config(), kRanks));
  Memory sum;
  for (std::int32_t rank = 0; rank < kRanks; ++rank) {
    const Memory memory = InProcess([&] {
      return LoadRank(checkpoint.path(), ExpertShard{rank, placement});
    });
    sum.peak += memory.peak;
    sum.at_rest += memory.at_rest;
    sum.moved += memory.moved;
  }
  const std::uint64_t limit = (directory->info().checkpoint_bytes + kRanks * replicated) * 11 / 10;
  RecordProperty("limit", std::to_string(limit));
  RecordProperty("at_rest", std::to_string(sum.at_rest));
  RecordProperty("peak", std::to_string(sum.peak));
  RecordProperty("moved", std::to_string(sum.moved));
  EXPECT_GE(sum.at_rest, experts) << "packed experts are in memory";
  EXPECT_LE(sum.at_rest, limit);
  EXPECT_LE(sum.peak, limit);
  // The old experts are there until the new ones are.
  EXPECT_LE(sum.moved, limit);
}

TEST(Loading, ReportsWhatItReads) {
  const auto directory = ModelDirectory::Open({.directory = "models/nano"}).value();
  const PlacementShape shape = PlacementShapeOf(directory->config(), 4);
  const std::unique_ptr<Device> device = MakeReferenceDevice();
  const auto read = [&](const std::optional<ExpertShard>& shard) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> reports;
    const auto model = DeepSeekModel::Load(
        {.directory = "models/nano",
         .shard = shard,
         .progress = [&](std::uint64_t done,
                         std::uint64_t total) { reports.emplace_back(done, total); }},
        *device);
    EXPECT_TRUE(model.ok()) << model.status();
    for (std::size_t i = 1; i < reports.size(); ++i) {
      EXPECT_GT(reports[i].first, reports[i - 1].first);
      EXPECT_EQ(reports[i].second, reports[0].second);
    }
    EXPECT_EQ(reports.back().first, reports.back().second);
    return reports.back().second;
  };
  const std::uint64_t whole = read(std::nullopt);
  const std::uint64_t quarter =
      read(ExpertShard{3, ContiguousModelPlacement(directory->config(), shape)});
  EXPECT_LT(whole, directory->info().checkpoint_bytes) << "prediction layers are not read";
  // gate, up and down of 4 experts in 3 layers, FP8, each with two scales.
  EXPECT_EQ(whole - quarter, 3 * 12 * (3 * 256 * 128 + 3 * 2 * 4));
}

absl::Duration At(double seconds) { return absl::Seconds(100 + seconds); }

TEST(LoadProgress, LinesComeAtTenthsAndWhenItTakesLong) {
  LoadProgress progress(LoadProgress::Form::kLines, At(0));
  constexpr std::uint64_t kTotal = 20'000'000'000;
  EXPECT_EQ(progress.Update(1'000'000'000, kTotal, At(0.5)), "");
  EXPECT_EQ(progress.Update(1'900'000'000, kTotal, At(2)), "") << "not a tenth yet";
  EXPECT_EQ(progress.Update(2'000'000'000, kTotal, At(2)),
            "10 %, 2.0 GB of 20.0 GB, 1.0 GB/s, 18 s left");
  EXPECT_EQ(progress.Update(4'000'000'000, kTotal, At(2.5)), "") << "a second apart";
  EXPECT_EQ(progress.Update(4'100'000'000, kTotal, At(3)),
            "20 %, 4.1 GB of 20.0 GB, 1.4 GB/s, 12 s left");
  EXPECT_EQ(progress.Update(4'200'000'000, kTotal, At(7.9)), "");
  EXPECT_EQ(progress.Update(4'200'000'000, kTotal, At(8)),
            "21 %, 4.2 GB of 20.0 GB, 525 MB/s, 30 s left");
  EXPECT_EQ(progress.Update(kTotal, kTotal, At(8.1)), "100 %, 20.0 GB in 8.1 s");
}

TEST(LoadProgress, SmallModelsMakeOneLine) {
  LoadProgress progress(LoadProgress::Form::kLines, At(0));
  for (std::uint64_t done = 1; done < 5000; done += 100) {
    EXPECT_EQ(progress.Update(done, 5000, At(0.0001 * static_cast<double>(done))), "");
  }
  EXPECT_EQ(progress.Update(5000, 5000, At(0.5)), "100 %, 5.0 kB in 0.5 s");
}

TEST(LoadProgress, TheBarIsRedrawnInPlaceAndEnded) {
  LoadProgress progress(LoadProgress::Form::kBar, At(0));
  EXPECT_EQ(progress.Update(0, 3'000'000'000, At(0)),
            "\r\x1b[Kloading weights [..............................]   0 %  0.0 B of 3.0 GB, 0.0 "
            "B/s");
  EXPECT_EQ(progress.Update(1'000'000, 3'000'000'000, At(0.09)), "");
  EXPECT_EQ(progress.Update(1'500'000'000, 3'000'000'000, At(1)),
            "\r\x1b[Kloading weights [###############...............]  50 %  1.5 GB of 3.0 GB, 1.5 "
            "GB/s, 1.0 s left");
  EXPECT_EQ(progress.Update(3'000'000'000, 3'000'000'000, At(1.01)),
            "\r\x1b[Kloading weights [##############################] 100 %  3.0 GB in 1.0 s\n");
}

TEST(LoadProgress, GoesToTheLogOrToTheTerminal) {
  const ManualClock clock;
  testing::internal::CaptureStderr();
  ShowLoadProgress(clock)(7, 7);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(HasSubstr("loading weights"), HasSubstr("100 %, 7.0 B in 0.0 s\"\n"),
                             testing::Not(HasSubstr("["))));

  int terminal = -1;
  int its_end = -1;
  ASSERT_EQ(openpty(&terminal, &its_end, nullptr, nullptr, nullptr), 0);
  const int standard_error = dup(STDERR_FILENO);
  dup2(its_end, STDERR_FILENO);
  ShowLoadProgress(clock)(7, 7);
  dup2(standard_error, STDERR_FILENO);
  std::array<char, 256> shown{};
  EXPECT_GT(read(terminal, shown.data(), shown.size() - 1), 0);
  EXPECT_THAT(shown.data(), HasSubstr("[##############################] 100 %"));
  for (const int file : {terminal, its_end, standard_error}) close(file);
}

TEST(LoadProgress, AModelOfNothingIsDone) {
  LoadProgress progress(LoadProgress::Form::kLines, At(0));
  EXPECT_EQ(progress.Update(0, 0, At(0)), "100 %, 0.0 B in 0.0 s");
}

}  // namespace
}  // namespace baleen::worker
