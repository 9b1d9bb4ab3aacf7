// What `baleen doctor` finds, on this machine and on made-up ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tools/cli/doctor/check.h"
#include "tools/cli/doctor/data_plane_check.h"
#include "tools/cli/doctor/machine_checks.h"
#include "tools/cli/doctor/model_checks.h"

namespace baleen::cli {
namespace {

using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(Report, TextHasTheFixBelowTheFinding) {
  const Checks checks = {
      {.name = "CPU", .detail = "fine"},
      {.name = "memory", .level = CheckLevel::kNote, .detail = "little", .fix = "buy some"},
      {.name = "port", .level = CheckLevel::kBad, .detail = "taken", .fix = "take another"}};
  EXPECT_EQ(ToText(checks, Style(false)),
            "ok    CPU     fine\n"
            "note  memory  little\n"
            "              fix: buy some\n"
            "BAD   port    taken\n"
            "              fix: take another\n");
}

TEST(Report, JsonIsStable) {
  EXPECT_EQ(
      ToJson({{.name = "CPU", .detail = "fine"},
              {.name = "port", .level = CheckLevel::kBad, .detail = "x", .fix = "y"}}),
      "{\"ok\":false,\"checks\":[{\"name\":\"CPU\",\"status\":\"ok\",\"detail\":\"fine\","
      "\"fix\":\"\"},{\"name\":\"port\",\"status\":\"bad\",\"detail\":\"x\",\"fix\":\"y\"}]}");
}

TEST(Report, ANoteIsNotBad) {
  EXPECT_TRUE(AllWell({}));
  EXPECT_TRUE(AllWell({{.level = CheckLevel::kNote}}));
  EXPECT_FALSE(AllWell({{.level = CheckLevel::kNote}, {.level = CheckLevel::kBad}}));
}

TEST(Memory, SaysWhatIsNeeded) {
  EXPECT_EQ(CheckMemory(8'000'000'000, 0).level, CheckLevel::kGood);
  EXPECT_EQ(CheckMemory(8'000'000'000, 7'000'000'000).detail,
            "8.00 GB available, the workers need about 7.00 GB");
  const Check bad = CheckMemory(8'000'000'000, 9'000'000'000);
  EXPECT_EQ(bad.level, CheckLevel::kBad);
  EXPECT_THAT(bad.fix, HasSubstr("fewer workers"));
}

TEST(SharedMemory, LittleIsANote) {
  EXPECT_EQ(CheckSharedMemory(64'000'000).level, CheckLevel::kGood);
  EXPECT_EQ(CheckSharedMemory(63'999'999).level, CheckLevel::kNote);
  EXPECT_THAT(CheckSharedMemory(0).fix, HasSubstr("--shm-size"));
}

TEST(OpenFiles, FewAreANote) {
  EXPECT_EQ(CheckOpenFiles(1024).level, CheckLevel::kGood);
  EXPECT_THAT(CheckOpenFiles(256).fix, HasSubstr("ulimit -n 1024"));
}

TEST(Listen, AFreePortIsGood) { EXPECT_EQ(CheckListen("127.0.0.1:0").level, CheckLevel::kGood); }

TEST(Listen, NamesTheAddressThatCanNotBeListenedOn) {
  for (const char* address : {"nowhere", "127.0.0.1:http-nonsense", "192.0.2.1:0"}) {
    const Check check = CheckListen(address);
    EXPECT_EQ(check.level, CheckLevel::kBad) << address;
    EXPECT_THAT(check.detail, HasSubstr(address));
    EXPECT_THAT(check.fix, Not(IsEmpty()));
  }
}

TEST(DataPlane, MovesABlockOnThisMachine) {
  const Check check = CheckDataPlane();
  EXPECT_EQ(check.level, CheckLevel::kGood) << check.detail;
  EXPECT_THAT(check.detail, HasSubstr("UCX 1."));
  EXPECT_THAT(check.detail, HasSubstr("moved 4.19 MB"));
}

TEST(Cpu, ThisMachineRunsTheTests) {
  EXPECT_EQ(CheckCpuFeatures().level, CheckLevel::kGood);
  EXPECT_THAT(CheckCpuFeatures().detail, HasSubstr("x86-64-v3"));
}

class ModelDirectory : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "doctor-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    for (const auto& entry : std::filesystem::directory_iterator("models/nano")) {
      if (entry.is_regular_file()) {
        std::filesystem::create_symlink(std::filesystem::absolute(entry.path()),
                                        directory_ / entry.path().filename());
      }
    }
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Check Find(const std::string& name) {
    for (Check& check : CheckModel(directory_, {})) {
      if (check.name == name) return check;
    }
    return {.name = "no check of this name"};
  }

  std::filesystem::path directory_;
};

TEST_F(ModelDirectory, TheNanoModelIsWell) {
  const Checks checks = CheckModel(directory_, {});
  EXPECT_TRUE(AllWell(checks)) << ToText(checks, Style(false));
  EXPECT_THAT(checks, Contains(Field(&Check::detail, HasSubstr("deepseek_v3, 4 layers"))));
  EXPECT_THAT(checks, Contains(Field(&Check::detail, HasSubstr("loads"))));
}

TEST_F(ModelDirectory, MissingPartsAreNamed) {
  std::filesystem::remove(directory_ / "tokenizer.json");
  EXPECT_EQ(Find("model text").level, CheckLevel::kBad);
  EXPECT_THAT(Find("model text").fix, HasSubstr("--token-ids"));
  EXPECT_EQ(Find("model weights").level, CheckLevel::kGood);
  std::filesystem::remove(directory_ / "model.safetensors");
  EXPECT_EQ(Find("model weights").level, CheckLevel::kBad);
  std::filesystem::remove(directory_ / "config.json");
  EXPECT_EQ(Find("model config").level, CheckLevel::kBad);
}

TEST_F(ModelDirectory, ATruncatedCheckpointIsNoticed) {
  std::filesystem::remove(directory_ / "model.safetensors");
  std::filesystem::copy_file("models/nano/model.safetensors", directory_ / "model.safetensors");
  std::filesystem::resize_file(directory_ / "model.safetensors", 1'000'000);
  EXPECT_EQ(Find("model weights").level, CheckLevel::kBad);
}

TEST_F(ModelDirectory, WeightsThatDoNotFitTheConfigAreNoticed) {
  std::ifstream in("models/nano/config.json");
  std::string config((std::istreambuf_iterator<char>(in)), {});
  const std::string field = "\"hidden_size\": 256";
  const std::size_t at = config.find(field);
  ASSERT_NE(at, std::string::npos);
  config.replace(at, field.size(), "\"hidden_size\": 128");
  std::filesystem::remove(directory_ / "config.json");
  std::ofstream(directory_ / "config.json") << config;
  const Check check = Find("model weights");
  EXPECT_EQ(check.level, CheckLevel::kBad);
  EXPECT_THAT(check.detail, HasSubstr("128"));
}

TEST_F(ModelDirectory, MoreWorkersThanMemory) {
  const Checks checks = CheckModel(directory_, {.workers = {64}, .kv_blocks = 4'000'000});
  EXPECT_FALSE(AllWell(checks));
  EXPECT_THAT(checks, Contains(Field(&Check::fix, HasSubstr("fewer workers"))));
}

TEST_F(ModelDirectory, RanksOfAGroupShareTheExperts) {
  const auto find = [&](const Topology& workers, const std::string& name) {
    for (Check& check : CheckModel(directory_, {.workers = workers, .kv_blocks = 1})) {
      if (check.name == name) return check;
    }
    return Check{};
  };
  EXPECT_EQ(find({.groups = 2, .ranks = 4}, "model experts").detail,
            "16 of a layer over 4 ranks of a group: 4 on each");
  const Check bad = find({.groups = 1, .ranks = 3}, "model experts");
  EXPECT_EQ(bad.level, CheckLevel::kBad);
  EXPECT_THAT(bad.detail, HasSubstr("16 expert slots"));
  const auto needed = [&](const Topology& workers) {
    const std::string detail = find(workers, "memory").detail;
    return std::stod(detail.substr(detail.find("about ") + 6));  // in MB
  };
  const double one = needed({.groups = 1});
  const double group = needed({.groups = 1, .ranks = 2});
  EXPECT_GT(group, one);
  EXPECT_LT(group, 1.7 * one) << "experts, most of the weights, are there once";
  EXPECT_NEAR(needed({.groups = 2}), 2 * one, 0.2);
}

}  // namespace
}  // namespace baleen::cli
