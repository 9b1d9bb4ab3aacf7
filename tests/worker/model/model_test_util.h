// What the model tests share: a loaded model with a KV cache full of NaN, and checkpoints changed
// in one place.
#pragma once

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "worker/device/reference_device.h"
#include "worker/model/deepseek_model.h"
#include "worker/model/format/safetensors.h"

namespace baleen::worker {

inline std::vector<std::int32_t> RandomTokens(std::size_t count, std::uint32_t vocabulary,
                                              std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<std::int32_t> tokens(count);
  for (std::int32_t& token : tokens) {
    token = static_cast<std::int32_t>(engine() % vocabulary);
  }
  return tokens;
}

// A model on a device whose fresh memory is full of `fill`, and a KV cache of `blocks` blocks full
// of NaN.
class LoadedModel {
 public:
  explicit LoadedModel(const std::string& directory, std::uint32_t blocks = 64,
                       StepLimits limits = {}, std::byte fill = std::byte{0xff})
      : LoadedModel({.directory = directory, .limits = limits}, blocks, fill) {}

  explicit LoadedModel(const ModelOptions& options, std::uint32_t blocks = 64,
                       std::byte fill = std::byte{0xff})
      : device_(MakeReferenceDevice(fill)), blocks_(blocks) {
    absl::StatusOr<std::unique_ptr<DeepSeekModel>> model = DeepSeekModel::Load(options, *device_);
    EXPECT_TRUE(model.ok()) << model.status();
    if (model.ok()) {
      model_ = *std::move(model);
      cache_ = *device_->Allocate(blocks * model_->info().kv_block_bytes);
      ClearCache();
    }
  }

  void ClearCache() { std::memset(cache_.data(), 0xff, cache_.bytes()); }

  DeepSeekModel& model() { return *model_; }
  KvView kv() const { return {.base = cache_.data(), .blocks = blocks_}; }

  std::vector<SampledToken> Step(std::span<const SequenceStep> sequences) {
    std::vector<SampledToken> sampled(sequences.size());
    const absl::Status status = model_->Step(sequences, kv(), {}, sampled);
    EXPECT_TRUE(status.ok()) << status;
    return sampled;
  }

  // The contents of the listed blocks, one after the other; the last one up to `tokens` of the
  // sequence.
  std::vector<std::byte> KvOf(std::span<const std::uint32_t> table, std::size_t tokens) const {
    const std::size_t row_bytes = model_->config().kv_row() * 2;
    std::vector<std::byte> bytes;
    for (std::size_t layer = 0; layer < model_->config().num_hidden_layers; ++layer) {
      for (std::size_t position = 0; position < tokens; ++position) {
        const std::byte* row = cache_.data() +
                               table[position / 64] * model_->info().kv_block_bytes +
                               (layer * 64 + position % 64) * row_bytes;
        bytes.insert(bytes.end(), row, row + row_bytes);
      }
    }
    return bytes;
  }

 private:
  std::unique_ptr<Device> device_;
  std::uint32_t blocks_;
  std::unique_ptr<DeepSeekModel> model_;
  Buffer cache_;
};

// A copy of a checkpoint in a folder of its own, gone with the object.
class CheckpointCopy {
 public:
  explicit CheckpointCopy(const std::string& directory) {
    std::string pattern = (std::filesystem::temp_directory_path() / "baleen_XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    std::filesystem::copy(directory, directory_, std::filesystem::copy_options::recursive);
  }
  ~CheckpointCopy() { std::filesystem::remove_all(directory_); }

  std::string path() const { return directory_.string(); }

  // Overwrites `bytes.size()` bytes of a tensor from byte `offset` on.
  void Patch(const std::string& tensor, std::size_t offset,
             const std::vector<std::uint8_t>& bytes) {
    const TensorEntry entry = Find(tensor);
    ASSERT_LE(entry.begin + offset + bytes.size(), entry.end);
    std::fstream file(weights(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(entry.begin + offset));
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

  // Replaces text in the header (names, dtypes, shapes) by other text of the same length.
  void ReplaceInHeader(const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string content = Read(weights());
    const std::size_t at = content.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    content.replace(at, from.size(), to);
    std::ofstream(weights(), std::ios::binary) << content;
  }

  void ReplaceInConfig(const std::string& from, const std::string& to) {
    const std::filesystem::path config = directory_ / "config.json";
    std::string content = Read(config);
    const std::size_t at = content.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    content.replace(at, from.size(), to);
    std::ofstream(config, std::ios::binary) << content;
  }

 private:
  std::filesystem::path weights() const { return directory_ / "model.safetensors"; }

  static std::string Read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TensorEntry Find(const std::string& tensor) const {
    const std::string content = Read(weights());
    const auto entries = ParseSafetensorsHeader(std::as_bytes(std::span(content)), content.size());
    EXPECT_TRUE(entries.ok()) << entries.status();
    for (const TensorEntry& entry : *entries) {
      if (entry.name == tensor) {
        return entry;
      }
    }
    ADD_FAILURE() << "no tensor " << tensor;
    return {};
  }

  std::filesystem::path directory_;
};

}  // namespace baleen::worker
