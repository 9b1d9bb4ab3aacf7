// Goldens, and model directories made up on the spot, for the tests of router/text.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "router/text/chat_template.h"
#include "router/text/tokenizer.h"

namespace baleen::router {

inline constexpr char kByteLevelDir[] = "tests/golden/text/byte_level";
inline constexpr char kMetaspaceDir[] = "tests/golden/text/metaspace";
inline constexpr char kNanoDir[] = "models/nano";

// DeepSeek-V3's tokenizer and template, where `make oracle` has fetched them.
inline constexpr char kDeepSeekDir[] = "build/oracle/deepseek_v3";

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The list `key` of a file made by tools/golden/text_golden.py.
inline nlohmann::json ReadGolden(const std::string& name, const std::string& key) {
  const auto rows = nlohmann::json::parse(ReadFile("tests/golden/text/" + name)).at(key);
  EXPECT_FALSE(rows.empty()) << name << " " << key;
  return rows;
}

inline std::shared_ptr<const Tokenizer> MustLoad(const std::string& model_dir,
                                                 const TextLimits& limits = {}) {
  auto tokenizer = Tokenizer::Load(model_dir, limits);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

inline std::shared_ptr<const ChatTemplate> MustLoadTemplate(const std::string& model_dir,
                                                            const TextLimits& limits = {}) {
  auto chat_template = ChatTemplate::Load(model_dir, MustLoad(model_dir, limits));
  EXPECT_TRUE(chat_template.ok()) << chat_template.status();
  return chat_template.ok() ? *chat_template : nullptr;
}

// A directory of its own, gone with the object.
class ModelDir {
 public:
  ModelDir() {
    std::string name = (std::filesystem::temp_directory_path() / "baleen_text_XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ModelDir(const ModelDir&) = delete;
  ModelDir& operator=(const ModelDir&) = delete;
  ~ModelDir() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  void Write(std::string_view name, std::string_view content) const {
    std::ofstream file(std::filesystem::path(path_) / name, std::ios::binary);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    EXPECT_TRUE(file.good()) << name;
  }

 private:
  std::string path_;
};

}  // namespace baleen::router
