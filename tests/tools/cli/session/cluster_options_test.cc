// The options of a local cluster against the model that it is to serve.
#include "tools/cli/session/cluster_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "models/nano";  // 16 experts in a layer

TEST(ClusterOptions, RanksShareTheExpertsOfTheModelOrAreRefused) {
  struct Case {
    ClusterSpec spec;
    const char* message;  // null = valid
  };
  for (const Case& c : std::vector<Case>{
           {{.model_directory = kModel, .mixed = {1, 2}}, nullptr},
           {{.model_directory = kModel, .mixed = {1, 3}, .group = {.redundant_experts = 2}},
            nullptr},
           {{.model_directory = kModel, .prefill = {1, 3}, .decode = {1}},
            "--prefill 1x3 can not share the 16 experts of the model and 0 redundant ones"},
           {{.model_directory = kModel, .prefill = {1, 4}, .decode = {1, 32}}, "--decode 1x32"},
           {{.model_directory = kModel, .mixed = {1, 4}, .group = {.redundant_experts = 3}},
            "16 experts of the model and 3 redundant ones"},
           {{.model_directory = kModel, .mixed = {1, 2}, .group = {.redundant_experts = 18}},
            "18 redundant ones"},
           {{.model_directory = kModel, .mixed = {3}}, nullptr},
           {{.model_directory = "no-such-model", .mixed = {1, 3}}, nullptr}}) {
    const absl::Status status = CheckClusterOptions({.spec = c.spec});
    EXPECT_EQ(status.ok(), c.message == nullptr) << status;
    if (c.message != nullptr) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    }
  }
}

// A minute was the limit whatever the model: one of 12 GB did not come up from a cold disk.
TEST(ClusterOptions, TheTimeToComeUpGrowsWithTheWeights) {
  std::string pattern = ::testing::TempDir() + "options-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path directory = pattern;
  ClusterOptions options{.spec = {.model_directory = directory}};
  EXPECT_EQ(ReadyWithin(options), absl::Seconds(60));
  for (const char* name : {"a.safetensors", "b.safetensors", "c.txt"}) {
    std::ofstream(directory / name).put('x');
    std::filesystem::resize_file(directory / name, 6'000'000'000);  // sparse
  }
  EXPECT_EQ(ReadyWithin(options), absl::Seconds(180));
  options.ready_seconds = 7;
  EXPECT_EQ(ReadyWithin(options), absl::Seconds(7));
  options = {.spec = {.model_directory = "no-such-model"}};
  EXPECT_EQ(ReadyWithin(options), absl::Seconds(60));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace baleen::cli
