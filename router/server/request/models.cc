#include "router/server/request/models.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::router {
namespace {

absl::StatusOr<std::string> NameOf(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(directory, error);
  if (error || !std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(fmt::format("model directory '{}' does not exist", directory));
  }
  std::string name = path.filename().string();
  if (name.empty() || name.size() > contract::kModelNameBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("the last component of model directory '{}' is the model's name: it must have "
                    "1 to {} bytes",
                    directory, contract::kModelNameBytesMax));
  }
  return name;
}

absl::Status WithDirectory(const std::string& directory, const absl::Status& status) {
  return absl::Status(status.code(), fmt::format("model directory '{}': {}", directory,
                                                 std::string(status.message())));
}

}  // namespace

absl::StatusOr<Models> Models::Load(const std::vector<std::string>& directories) {
  Models result;
  for (const std::string& directory : directories) {
    BALEEN_ASSIGN_OR_RETURN(std::string name, NameOf(directory));
    if (result.Find(name).ok()) {
      return absl::InvalidArgumentError(fmt::format("two model directories are named '{}'", name));
    }
    auto tokenizer = Tokenizer::Load(directory);
    if (!tokenizer.ok()) return WithDirectory(directory, tokenizer.status());
    auto chat_template = ChatTemplate::Load(directory, *tokenizer);
    if (!chat_template.ok()) return WithDirectory(directory, chat_template.status());
    result.models_.push_back(std::make_unique<const ModelText>(
        ModelText{std::move(name), *std::move(tokenizer), *std::move(chat_template)}));
  }
  return result;
}

absl::StatusOr<const ModelText*> Models::Find(std::string_view name) const {
  if (name.empty()) {
    if (models_.size() == 1) return models_.front().get();
    return contract::MakeStatus(
        contract::Reason::kInvalidRequest,
        fmt::format("model is empty, and this router serves {} models: name one", models_.size()));
  }
  for (const auto& model : models_) {
    if (model->name == name) return model.get();
  }
  return contract::MakeStatus(contract::Reason::kModelNotFound,
                              fmt::format("no model is named '{}'", name));
}

std::vector<ServedModel> Models::Served() const {
  std::vector<ServedModel> served;
  for (const auto& model : models_) {
    served.push_back({.name = model->name,
                      .token_ids = static_cast<std::uint32_t>(model->tokenizer->table().id_end())});
  }
  return served;
}

}  // namespace baleen::router
