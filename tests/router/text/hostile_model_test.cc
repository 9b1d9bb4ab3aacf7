// Model directories that are damaged, wrong or hostile: a status, never a crash.
#include <sys/stat.h>

#include <random>
#include <string>

#include "gmock/gmock.h"
#include "tests/router/text/text_test_util.h"

namespace baleen::router {
namespace {

using testing::HasSubstr;

std::string GoodTokenizer() { return ReadFile(std::string(kByteLevelDir) + "/tokenizer.json"); }

absl::Status LoadStatus(const std::string& tokenizer_json, const std::string& config_json = "") {
  const ModelDir dir;
  dir.Write("tokenizer.json", tokenizer_json);
  if (!config_json.empty()) dir.Write("tokenizer_config.json", config_json);
  const auto tokenizer = Tokenizer::Load(dir.path());
  if (!tokenizer.ok()) return tokenizer.status();
  return ChatTemplate::Load(dir.path(), *tokenizer).status();
}

TEST(HostileModelTest, MissingFilesAreNamed) {
  EXPECT_EQ(Tokenizer::Load("no/such/model").status(),
            absl::NotFoundError("tokenizer.json not found in no/such/model"));
}

// What is there but cannot be read was taken for missing, and the model served without it.
TEST(HostileModelTest, WhatIsNoRegularFileIsNamed) {
  const std::string kind = ": not a regular file";
  for (const std::string name : {"/tokenizer.json", "/tokenizer_config.json"}) {
    const ModelDir dir;
    const std::string path = dir.path() + name;
    if (name != "/tokenizer.json") dir.Write("tokenizer.json", GoodTokenizer());
    const auto load = [&] { return Tokenizer::Load(dir.path()).status(); };
    std::filesystem::create_directory(path);
    EXPECT_EQ(load(), absl::FailedPreconditionError(path + kind));
    std::filesystem::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    EXPECT_EQ(load(), absl::FailedPreconditionError(path + kind));
    std::filesystem::remove(path);
    std::filesystem::create_symlink("nowhere", path);
    EXPECT_EQ(load(), absl::FailedPreconditionError(path + ": No such file or directory"));
    std::filesystem::remove(path);
    dir.Write(name.substr(1), "");
    EXPECT_EQ(load(), absl::FailedPreconditionError(path + " is empty"));
  }
}

TEST(HostileModelTest, LargeFilesAreNotRead) {
  const ModelDir dir;
  dir.Write("tokenizer.json", "");
  std::filesystem::resize_file(dir.path() + "/tokenizer.json", kTokenizerFileBytesMax + 1);
  EXPECT_EQ(Tokenizer::Load(dir.path()).status(),
            absl::FailedPreconditionError(dir.path() +
                                          "/tokenizer.json is 67108865 bytes, limit 67108864"));
}

struct Edit {
  const char* name;
  void (*apply)(nlohmann::json&);
  const char* error;
};

const Edit kEdits[] = {
    {"random tokens", [](nlohmann::json& j) { j["model"]["dropout"] = 0.5; }, "dropout"},
    {"other model",
     [](nlohmann::json& j) {
       j["model"] = {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "a"}};
       j["added_tokens"] = nlohmann::json::array();
     },
     "model.type is not BPE"},
    {"no decoder", [](nlohmann::json& j) { j["decoder"] = nullptr; }, "no decoder"},
    {"decoder that does not stream",
     [](nlohmann::json& j) {
       j["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
     },
     "decoder WordPiece is not supported"},
    {"byte without a token",
     [](nlohmann::json& j) {
       j["model"]["merges"] = nlohmann::json::array();
       j["model"]["vocab"]["no byte"] = j["model"]["vocab"]["A"];
       j["model"]["vocab"].erase("A");
     },
     "no token for 1 of the 243 bytes of UTF-8, for one 0x41"},
    {"added token with a foreign id",
     [](nlohmann::json& j) { j["added_tokens"].back()["id"] = 600; },
     "added token \"</think>\" has id 600"},
    {"added token with a taken id", [](nlohmann::json& j) { j["added_tokens"].back()["id"] = 5; },
     "added token \"</think>\" has id 5"},
    {"two tokens with one id", [](nlohmann::json& j) { j["model"]["vocab"]["A"] = 3; },
     "two tokens of the vocabulary have the same id"},
    {"huge id", [](nlohmann::json& j) { j["model"]["vocab"]["A"] = 4000000000u; },
     "token id 4000000000 is above the limit 1048575"},
    {"merge of unknown tokens",
     [](nlohmann::json& j) {
       j["model"]["merges"].push_back({"no", "such"});
     },
     "tokenizer.json"},
    {"control token of one character",
     [](nlohmann::json& j) {
       j["added_tokens"].back()["content"] = "€";
       j["added_tokens"].back()["special"] = true;
     },
     "control token \"€\" is a single character"},
    {"broken regular expression",
     [](nlohmann::json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "((("; },
     "tokenizer.json"},
    {"huge regular expression",
     [](nlohmann::json& j) {
       j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "((a{1000}){1000}){1000}";
     },
     "tokenizer.json"},
    {"other version", [](nlohmann::json& j) { j["version"] = "2.0"; }, "version"},
    {"no model", [](nlohmann::json& j) { j.erase("model"); }, "tokenizer.json"},
};

TEST(HostileModelTest, WrongTokenizersAreRefused) {
  const nlohmann::json good = nlohmann::json::parse(GoodTokenizer());
  for (const Edit& edit : kEdits) {
    nlohmann::json edited = good;
    edit.apply(edited);
    const absl::Status status = LoadStatus(edited.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << edit.name << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(edit.error)) << edit.name;
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << edit.name;
  }
}

TEST(HostileModelTest, WrongConfigurationsAreRefused) {
  const struct {
    const char* config;
    const char* error;
  } cases[] = {
      {"{", "tokenizer_config.json"},
      {"[]", "tokenizer_config.json"},
      {R"({"bos_token": 5})", "tokenizer_config.json"},
      {R"({"bos_token": "<nope>"})", "bos_token \"<nope>\" is not in the vocabulary"},
      {R"({"eos_token": {"content": "<nope>"}})", "eos_token \"<nope>\" is not in the vocabulary"},
      {R"({"add_bos_token": true})", "add_bos_token is set, but no bos_token"},
      {R"({"chat_template": 7})", "tokenizer_config.json"},
      {R"({"chat_template": [{"name": "rag", "template": "x"}]})", "no entry named \"default\""},
      {R"({"chat_template": "{{"})", "chat template: syntax error"},
  };
  for (const auto& c : cases) {
    const absl::Status status = LoadStatus(GoodTokenizer(), c.config);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << c.config << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.error)) << c.config;
  }
  const absl::Status without = LoadStatus(GoodTokenizer(), "{}");
  EXPECT_EQ(without.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(without.message()), HasSubstr("no chat_template"));
  EXPECT_TRUE(
      LoadStatus(GoodTokenizer(), R"({"chat_template": [{"name": "default", "template": "x"}]})")
          .ok());
}

TEST(HostileModelTest, DeeplyNestedFilesAreRefused) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  EXPECT_FALSE(LoadStatus(deep).ok());
  EXPECT_FALSE(LoadStatus(R"({"version": "1.0", "model": )" + deep + "}").ok());
  EXPECT_FALSE(LoadStatus(GoodTokenizer(), deep).ok());
  std::string parentheses = std::string(100'000, '(') + "1" + std::string(100'000, ')');
  const nlohmann::json config = {{"chat_template", "{{ " + parentheses + " }}"}};
  EXPECT_FALSE(LoadStatus(GoodTokenizer(), config.dump()).ok());
}

// Bytes flipped, cut, doubled at random: whatever loads must work, whatever does not must say so.
TEST(HostileModelTest, DamagedFilesNeverCrash) {
  constexpr unsigned kSeed = 4;
  std::mt19937 random(kSeed);
  const std::string good = GoodTokenizer();
  int loaded = 0;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = good;
    for (unsigned i = 1 + random() % 3; i > 0; --i) {
      const std::size_t at = random() % damaged.size();
      switch (random() % 4) {
        case 0:
          damaged[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          damaged.erase(at, 1 + random() % 20);
          break;
        case 2:
          damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 40));
          break;
        default:
          damaged[at] = "0123456789{}[]\",:"[random() % 17];
      }
    }
    const ModelDir dir;
    dir.Write("tokenizer.json", damaged);
    const auto tokenizer = Tokenizer::Load(dir.path());
    if (!tokenizer.ok()) {
      EXPECT_NE(tokenizer.status().message(), "") << "seed " << kSeed << " round " << round;
      continue;
    }
    ++loaded;
    const auto ids = (*tokenizer)->Encode("What is 12 + <think> 你?", ControlText::kAsText);
    if (ids.ok()) {
      EXPECT_TRUE(IsValidUtf8((*tokenizer)->Decode(*ids))) << "round " << round;
    }
  }
  EXPECT_GT(loaded, 0) << "damage in the middle of a merge is still a tokenizer";
}

}  // namespace
}  // namespace baleen::router
