// Counts of expert tokens from a file that anybody may have written.
#include "tools/cli/placement/counts_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const std::string& text) {
  const auto counts = ParseCounts("c.json", text);
  EXPECT_EQ(counts.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 100);
  EXPECT_THAT(std::string(counts.status().message()), StartsWith("c.json: "));
  EXPECT_LT(counts.status().message().size(), 300u);
  return std::string(counts.status().message());
}

TEST(Counts, AreReadAsTheyAreWritten) {
  const worker::ExpertCounts counts = {{0, 1, worker::kExpertTokensMax}, {7, 0, 0}};
  EXPECT_EQ(FormatCounts(counts), "{\"layers\": [\n  [0, 1, 281474976710655],\n  [7, 0, 0]\n ]}\n");
  const auto read = ParseCounts("c.json", FormatCounts(counts));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, counts);
}

TEST(Counts, AnErrorNamesTheFieldAndTheLimit) {
  struct Case {
    std::string text;
    const char* names;
  };
  for (const Case& c : std::vector<Case>{
           {"", "c.json"},
           {"[]", "not a JSON object"},
           {"{}", "field \"layers\" must be a list"},
           {R"({"layers": 7})", "field \"layers\" must be a list"},
           {R"({"layers": []})", "field \"layers\" has 0 of them, not 1 to 1024"},
           {R"({"layers": [[1]], "version": 1})", "unknown field"},
           {R"({"layers": [[1]], "layers": [[1]]})", "layers"},
           {R"({"layers": [[1]]} x)", "c.json"},
           {R"({"layers": [1]})", "layers[0]: it must be a list"},
           {R"({"layers": [[1], []]})", "layers[1]: 0 experts, not 1 to 4096"},
           {R"({"layers": [[1, 2], [1]]})", "layers[1]: 1 experts, layers[0] has 2"},
           {R"({"layers": [[1, -2]]})", "layers[0]: expert 1 must have a whole number"},
           {R"({"layers": [[1.5]]})", "expert 0 must have"},
           {R"({"layers": [["1"]]})", "expert 0 must have"},
           {R"({"layers": [[null]]})", "expert 0 must have"},
           {R"({"layers": [[281474976710656]]})", "0 to 281474976710655"},
           {R"({"layers": [[99999999999999999999999]]})", "expert 0 must have"},
           {R"({"layers": [[[1]]]})", "deeper than 3"},
           {std::string(1'000'000, '['), "deeper than 3"}}) {
    EXPECT_THAT(ErrorOf(c.text), HasSubstr(c.names)) << c.text.substr(0, 100);
  }
}

TEST(Counts, ThereAreAsManyAsAModelMayHave) {
  std::string layer = "[1";
  for (int expert = 1; expert < worker::kExpertsMax; ++expert) layer += ",1";
  EXPECT_TRUE(ParseCounts("c.json", "{\"layers\": [" + layer + "]]}").ok());
  EXPECT_THAT(ErrorOf("{\"layers\": [" + layer + ",1]]}"), HasSubstr("4097 experts"));
  std::string layers = "{\"layers\": [[1]";
  for (std::size_t i = 0; i < worker::kMoeLayersMax; ++i) layers += ",[1]";
  EXPECT_THAT(ErrorOf(layers + "]}"), HasSubstr("has 1025 of them, not 1 to 1024"));
}

class CountsFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "counts-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_;
};

TEST_F(CountsFile, IsWrittenAndRead) {
  const worker::ExpertCounts counts = {{3, 4}};
  ASSERT_TRUE(WriteCountsFile(directory_ / "c.json", counts).ok());
  const auto read = ReadCountsFile(directory_ / "c.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, counts);
}

TEST_F(CountsFile, ErrorsNameThePath) {
  const std::string large = directory_ / "large.json";
  std::ofstream(large).put('{');
  std::filesystem::resize_file(large, kCountsFileBytesMax + 1);
  for (const std::string& path :
       {std::string(directory_ / "missing"), directory_.string(), large}) {
    EXPECT_THAT(std::string(ReadCountsFile(path).status().message()), HasSubstr(path));
  }
  EXPECT_THAT(std::string(WriteCountsFile(directory_, {{1}}).message()),
              HasSubstr(directory_.string()));
  EXPECT_THAT(std::string(WriteCountsFile("/dev/full", {{1}}).message()),
              HasSubstr("/dev/full: No space left"));
}

}  // namespace
}  // namespace baleen::cli
