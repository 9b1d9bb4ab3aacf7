// Generation in this process, as a cluster would do it.
#include "tools/cli/session/local_generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "models/nano";

LocalGeneration Some(std::uint32_t tokens) {
  LocalGeneration generation{.directory = kModel};
  for (const int id : {0, 5, 6}) generation.request.mutable_token_ids()->add_ids(id);
  generation.request.mutable_stop()->set_max_tokens(tokens);
  return generation;
}

struct Reply {
  absl::Status status;
  std::vector<std::int32_t> ids;
  std::string text;
  v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;
};

Reply Generate(const LocalGeneration& generation) {
  Reply reply;
  reply.status = GenerateLocally(generation, [&](const v1::GenerateChunk& chunk) {
    reply.ids.insert(reply.ids.end(), chunk.token_ids().begin(), chunk.token_ids().end());
    reply.text += chunk.delta();
    reply.finish = chunk.finish_reason();
  });
  return reply;
}

// --timeout-seconds was ignored.
TEST(LocalGeneration, EndsWithItsTime) {
  LocalGeneration generation = Some(4);
  generation.within = absl::ZeroDuration();
  const Reply reply = Generate(generation);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kDeadlineExceeded) << reply.status;
  EXPECT_THAT(reply.status.ToString(), HasSubstr("deadline_exceeded: "));
}

// A name that the model does not have was ignored.
TEST(LocalGeneration, KnowsItsModelByName) {
  LocalGeneration generation = Some(2);
  generation.request.set_model("nano");
  EXPECT_TRUE(Generate(generation).status.ok());
  generation.request.set_model("gpt");
  const absl::Status status = Generate(generation).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.ToString(), HasSubstr("model_not_found: no model is named 'gpt'"));
}

// The token that ends a reply was part of its text, unlike in the reply of a cluster.
TEST(LocalGeneration, TheTokenThatEndsAReplyHasNoText) {
  const Reply whole = Generate(Some(2));
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  ASSERT_EQ(whole.ids.size(), 2u);
  EXPECT_EQ(whole.finish, v1::FINISH_REASON_LENGTH);
  LocalGeneration one = Some(1);
  const Reply first = Generate(one);
  ASSERT_NE(first.text, whole.text) << "the second token has a text";

  // The same model, in which the second token ends a reply.
  std::string directory = ::testing::TempDir() + "model-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  for (const auto& entry : std::filesystem::directory_iterator(kModel)) {
    if (!entry.is_regular_file()) continue;
    std::filesystem::copy_file(entry.path(), directory / entry.path().filename());
  }
  std::filesystem::remove(directory + "/generation_config.json");
  std::ifstream in(directory + "/config.json");
  std::string config((std::istreambuf_iterator<char>(in)), {});
  const std::string field = "\"eos_token_id\": 1";
  const std::size_t at = config.find(field);
  ASSERT_NE(at, std::string::npos);
  std::ofstream(directory + "/config.json")
      << config.replace(at, field.size(), "\"eos_token_id\": " + std::to_string(whole.ids[1]));

  LocalGeneration generation = Some(5);
  generation.directory = directory;
  const Reply ended = Generate(generation);
  EXPECT_EQ(ended.ids, whole.ids) << ended.status;
  EXPECT_EQ(ended.finish, v1::FINISH_REASON_STOP);
  EXPECT_EQ(ended.text, first.text);
  generation.request.mutable_stop()->set_ignore_eos(true);
  generation.request.mutable_stop()->set_max_tokens(2);
  EXPECT_EQ(Generate(generation).text, whole.text);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace baleen::cli
