// Placements as files: what is written is read back, and what is wrong is named.
#include "worker/group/rules/placement_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "tests/worker/group/group_test_util.h"

namespace baleen::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string Error(const std::string& text) {
  return std::string(ParsePlacement("p.json", text).status().message());
}

TEST(PlacementFileTest, WhatIsWrittenIsReadBack) {
  const PlacementShape shape = {.experts = 8, .ranks = 4, .redundant_experts = 4};
  GroupPlacement placement{.shape = shape};
  const std::vector<double> load = {9, 1, 1, 1, 1, 1, 1, 5};
  placement.layers = {ContiguousPlacement(shape), BalancedPlacement(shape, load)};
  const std::string path = testing::TempDir() + "/placement_file_test.json";
  ASSERT_TRUE(WritePlacementFile(path, placement).ok());
  const absl::StatusOr<GroupPlacement> read = ReadPlacementFile(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->layers, placement.layers);
  EXPECT_EQ(read->shape.experts, 8);
  EXPECT_EQ(read->shape.ranks, 4);
  EXPECT_EQ(read->shape.redundant_experts, 4);
  EXPECT_EQ(read->version, 0u);
}

TEST(PlacementFileTest, WhatIsWrongIsNamed) {
  const std::string start = R"({"version":1,"experts":2,"ranks":2,"redundant_experts":0,)";
  EXPECT_EQ(Error(start + R"("layers":[[0,1]]})"), "");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[]", "not a JSON object"},
      {start + R"("layers":[[0,1]],"more":1})", "there is no field \"more\""},
      {start + R"("layers":7})", "\"layers\" must be a list"},
      {R"({"version":1})", "\"layers\" must be a list"},
      {R"({"version":2,"layers":[]})", "version"},
      {R"({"version":1,"experts":0,"layers":[]})", "experts"},
      {R"({"version":1,"experts":3,"ranks":2,"redundant_experts":0,"layers":[[0,1,2]]})",
       "3 expert slots do not divide by 2 ranks"},
      {start + R"("layers":[]})", "has 0 of them"},
      {start + R"("layers":[[0,1],3]})", "layers[1]: it must be a list"},
      {start + R"("layers":[[0]]})", "layers[0]: 1 slots, must be 2"},
      {start + R"("layers":[[0,-1]]})", "layers[0]: slot 1 must be an expert, 0 to 1"},
      {start + R"("layers":[[0,1.5]]})", "layers[0]: slot 1"},
      {start + R"("layers":[[0,4294967296]]})", "layers[0]: slot 1"},
      {start + R"("layers":[[0,2]]})", "layers[0]: "},
      {start + R"("layers":[[0,0]]})", "expert 1 has no slot"},
      {start + R"("layers":[[[0],1]]})", "nested deeper"},
      {start + R"("layers":[[0,1]]} x)", "not valid JSON"}};
  for (const auto& [text, expected] : cases) {
    EXPECT_THAT(Error(text), AllOf(StartsWith("p.json: "), HasSubstr(expected))) << text;
  }
}

TEST(PlacementFileTest, SizesAreBounded) {
  std::string layers;
  for (std::size_t i = 0; i <= kMoeLayersMax; ++i) layers += i == 0 ? "[0]" : ",[0]";
  EXPECT_THAT(Error(R"({"version":1,"experts":1,"ranks":1,"redundant_experts":0,"layers":[)" +
                    layers + "]}"),
              HasSubstr("not 1 to 1024"));
  EXPECT_THAT(Error(std::string(kPlacementFileBytesMax + 1, ' ')), HasSubstr("the limit is"));
}

TEST(PlacementFileTest, FilesThatAreNotThereOrNoneAreNamed) {
  const std::string path = testing::TempDir() + "/placement_file_test.none";
  EXPECT_EQ(ReadPlacementFile(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadPlacementFile(path).status().message()), HasSubstr(path));
  EXPECT_THAT(std::string(ReadPlacementFile(testing::TempDir()).status().message()),
              HasSubstr("is not a regular file"));
  EXPECT_FALSE(WritePlacementFile(testing::TempDir() + "/none/there", {}).ok());
  // Writing to a device once replaced it by a file.
  const absl::Status device = WritePlacementFile("/dev/null", {});
  EXPECT_THAT(std::string(device.message()), HasSubstr("no regular file"));
}

}  // namespace
}  // namespace baleen::worker
