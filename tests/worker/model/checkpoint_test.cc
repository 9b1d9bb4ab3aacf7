// Opening a model directory: one file or shards, what they must agree on, and the digest.
#include "worker/model/checkpoint.h"

#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace baleen::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A safetensors file of byte tensors, each a name and its content.
std::string Safetensors(const std::vector<std::pair<std::string, std::string>>& tensors) {
  std::string header = "{", data;
  for (const auto& [name, content] : tensors) {
    header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", name, content.size(), data.size(),
                          data.size() + content.size());
    data += content;
  }
  header += "}";
  std::string length(8, '\0');
  const std::uint64_t bytes = header.size();
  std::memcpy(length.data(), &bytes, 8);
  return length + header + data;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    std::string pattern = testing::TempDir() + "checkpoint_testXXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~CheckpointTest() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(directory_ / name, std::ios::binary) << content;
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() {
    return Checkpoint::Open(directory_.string());
  }
  std::string Error() { return std::string(Open().status().message()); }
  std::string Digest() {
    const auto checkpoint = Open();
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    const absl::StatusOr<std::string> digest = CheckpointDigest(directory_.string(), **checkpoint);
    EXPECT_TRUE(digest.ok()) << digest.status();
    return digest.value_or("");
  }

  std::filesystem::path directory_;
};

std::string Text(const TensorView& view) {
  return std::string(reinterpret_cast<const char*>(view.data.data()), view.data.size());
}

TEST_F(CheckpointTest, ReadsASingleFile) {
  Write("model.safetensors", Safetensors({{"b", "four"}, {"a", "xy"}}));
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("a", "b"));
  EXPECT_EQ((*checkpoint)->bytes(), std::filesystem::file_size(directory_ / "model.safetensors"));
  EXPECT_TRUE((*checkpoint)->Has("a"));
  EXPECT_FALSE((*checkpoint)->Has("c"));
  const absl::StatusOr<TensorView> view = (*checkpoint)->Get("b", {DType::kU8}, {4});
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(Text(*view), "four");
  EXPECT_EQ(view->dtype, DType::kU8);
  EXPECT_THAT(view->shape, ElementsAre(4u));
}

TEST_F(CheckpointTest, GetNamesWhatDoesNotFitTheConfig) {
  Write("model.safetensors", Safetensors({{"w", "four"}}));
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const absl::Status missing = (*checkpoint)->Get("v", {}, {4}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("tensor \"v\" is missing"));
  const absl::Status dtype = (*checkpoint)->Get("w", {DType::kBF16, DType::kF32}, {4}).status();
  EXPECT_EQ(dtype.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(dtype.message()),
              HasSubstr("model.safetensors: tensor \"w\" is U8, the config asks for BF16 or F32"));
  const absl::Status shape = (*checkpoint)->Get("w", {}, {2, 2}).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()),
              HasSubstr("tensor \"w\" has shape [4], the config asks for [2, 2]"));
}

TEST_F(CheckpointTest, ReadsShards) {
  Write("model-00001-of-00002.safetensors", Safetensors({{"a", "A"}, {"extra", "E"}}));
  Write("model-00002-of-00002.safetensors", Safetensors({{"b", "B"}}));
  Write("model.safetensors.index.json",
        R"({"metadata":{"total_size":3},"weight_map":{"a":"model-00001-of-00002.safetensors",)"
        R"("b":"model-00002-of-00002.safetensors"}})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("a", "b", "extra"));
  EXPECT_EQ(Text(*(*checkpoint)->Get("b", {}, {1})), "B");
}

TEST_F(CheckpointTest, ReadsThroughTheLinksOfTheHuggingFaceCache) {
  std::filesystem::create_directory(directory_ / "blobs");
  Write("blobs/0123", Safetensors({{"a", "A"}}));
  std::filesystem::create_symlink("blobs/0123", directory_ / "model.safetensors");
  EXPECT_TRUE(Open().ok()) << Open().status();
}

TEST_F(CheckpointTest, NamesAMissingDirectoryAndMissingWeights) {
  const absl::Status weights = Open().status();
  EXPECT_EQ(weights.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(weights.message()),
              HasSubstr(directory_.string() + ": neither model.safetensors nor"));

  const absl::Status directory = Checkpoint::Open((directory_ / "none").string()).status();
  EXPECT_EQ(directory.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(directory.message()), HasSubstr((directory_ / "none").string()));
}

TEST_F(CheckpointTest, NamesTheFileOfABrokenHeader) {
  const std::string file = Safetensors({{"a", "ABCD"}});
  Write("model.safetensors", file.substr(0, file.size() - 1));
  EXPECT_THAT(Error(), HasSubstr((directory_ / "model.safetensors").string()));
  EXPECT_THAT(Error(), HasSubstr("tensor \"a\""));
  EXPECT_THAT(Error(), HasSubstr("beyond the file's 3 data bytes"));
  Write("model.safetensors", "");
  EXPECT_THAT(Error(), HasSubstr("truncated: 0 bytes"));
}

TEST_F(CheckpointTest, RefusesWhatIsNoRegularFile) {
  std::filesystem::create_directory(directory_ / "model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("not a regular file"));
  std::filesystem::remove(directory_ / "model.safetensors");
  ASSERT_EQ(mkfifo((directory_ / "model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(Error(), HasSubstr("not a regular file"));
}

TEST_F(CheckpointTest, RefusesAnIndexThatDisagreesWithItsShards) {
  Write("one.safetensors", Safetensors({{"a", "A"}}));
  Write("two.safetensors", Safetensors({{"b", "B"}}));
  const auto error = [&](const std::string& index) {
    Write("model.safetensors.index.json", index);
    return Error();
  };
  EXPECT_THAT(error(R"({"weight_map":{"a":"two.safetensors"}})"),
              HasSubstr("tensor \"a\" is not in two.safetensors"));
  EXPECT_THAT(error(R"({"weight_map":{"c":"one.safetensors"}})"),
              HasSubstr("tensor \"c\" is not in one.safetensors"));
  EXPECT_THAT(error(R"({"weight_map":{"a":"three.safetensors"}})"),
              HasSubstr("three.safetensors: No such file"));
  Write("two.safetensors", Safetensors({{"a", "B"}}));
  EXPECT_THAT(error(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"),
              HasSubstr("tensor \"a\" is in one.safetensors and in two.safetensors"));
}

TEST_F(CheckpointTest, RefusesAMalformedIndex) {
  Write("one.safetensors", Safetensors({{"a", "A"}}));
  const std::pair<std::string, std::string> cases[] = {
      {"", "not valid JSON"},
      {"[]", "needs an object weight_map"},
      {R"({"weight_map":[]})", "needs an object weight_map"},
      {R"({"weight_map":{}})", "weight_map is empty"},
      {R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors"}})", "duplicate key \"a\""},
      {R"({"weight_map":{"a":5}})", "5 is not the plain name"},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "not the plain name"},
      {R"({"weight_map":{"a":"/etc/one.safetensors"}})", "not the plain name"},
      {R"({"weight_map":{"a":"sub/one.safetensors"}})", "not the plain name"},
      {R"({"weight_map":{"a":"sub\\one.safetensors"}})", "not the plain name"},
      {R"({"weight_map":{"a":".safetensors"}})", "not the plain name"},
      {R"({"weight_map":{"a":"one.safetensors\u0000.safetensors"}})", "not the plain name"},
      {R"({"weight_map":{"a":"passwd"}})", "not the plain name"},
      {R"({"weight_map":)" + std::string(1000, '['), "nested deeper than 8"},
  };
  for (const auto& [index, says] : cases) {
    Write("model.safetensors.index.json", index);
    EXPECT_THAT(Error(), HasSubstr(says)) << index;
    EXPECT_THAT(Error(), HasSubstr("model.safetensors.index.json")) << index;
  }
}

TEST_F(CheckpointTest, DigestChangesWithEveryByteThatMatters) {
  Write("config.json", "{}");
  Write("model.safetensors", Safetensors({{"a", "ABCD"}, {"b", "EFGH"}}));
  const std::string first = Digest();
  EXPECT_THAT(first, testing::MatchesRegex("[0-9a-f]{64}"));
  EXPECT_EQ(Digest(), first);
  Write("tokenizer.json", "not part of the digest");
  EXPECT_EQ(Digest(), first);

  std::vector<std::string> digests = {first};
  Write("model.safetensors", Safetensors({{"a", "ABCX"}, {"b", "EFGH"}}));
  digests.push_back(Digest());
  Write("model.safetensors", Safetensors({{"a", "ABC"}, {"b", "XEFGH"}}));
  digests.push_back(Digest());
  Write("config.json", "{ }");
  digests.push_back(Digest());
  Write("generation_config.json", "");
  digests.push_back(Digest());
  std::ranges::sort(digests);
  EXPECT_EQ(std::ranges::adjacent_find(digests), digests.end());
}

TEST_F(CheckpointTest, DigestOfALargeFileSamplesTheMiddleOfEveryTensor) {
  const std::string large(kDigestWholeFileBytesMax, 'w');
  const std::string path = (directory_ / "model.safetensors").string();
  Write("model.safetensors", Safetensors({{"large", large}, {"small", "ABCD"}}));
  const std::string first = Digest();

  const auto with_byte = [&](std::int64_t from_end, char byte) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-from_end, std::ios::end);
    file.put(byte);
    file.close();
    return Digest();
  };
  const auto middle = static_cast<std::int64_t>(4 + large.size() / 2);
  EXPECT_NE(with_byte(1, 'X'), first) << "a tensor shorter than a sample counts whole";
  EXPECT_EQ(with_byte(1, 'D'), first);
  EXPECT_NE(with_byte(middle, 'X'), first);
  EXPECT_EQ(with_byte(middle, 'w'), first);
  // The documented limit of a sampled digest.
  EXPECT_EQ(with_byte(static_cast<std::int64_t>(4 + large.size()), 'X'), first);
}

TEST(Checkpoint, OpensTheShippedModel) {
  const auto checkpoint = Checkpoint::Open("models/nano");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Has("model.embed_tokens.weight"));
  EXPECT_TRUE((*checkpoint)->Has("model.layers.0.self_attn.q_a_proj.weight_scale_inv"));
}

}  // namespace
}  // namespace baleen::worker
