#include "router/server/request/models.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "proto/contract/model_name.h"
#include "proto/contract/status.h"

namespace baleen::router {
namespace {

absl::StatusOr<std::string> NameOf(const std::string& directory) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(directory, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(fmt::format("model directory '{}' does not exist", directory));
  }
  if (!std::filesystem::is_directory(status)) {
    return absl::InvalidArgumentError(
        fmt::format("model directory '{}' is not a directory", directory));
  }
  std::string name = contract::ModelNameOf(directory);
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

// What is not there stays null; what is there must be right.
absl::StatusOr<ModelText> LoadModelText(std::string name, const std::string& directory) {
  ModelText model{.name = std::move(name)};
  auto tokenizer = Tokenizer::Load(directory);
  if (absl::IsNotFound(tokenizer.status())) {
    std::error_code error;
    if (std::filesystem::exists(std::filesystem::path(directory) / "config.json", error)) {
      return model;
    }
    return absl::NotFoundError("neither config.json nor tokenizer.json in it: it holds no model");
  }
  BALEEN_ASSIGN_OR_RETURN(model.tokenizer, std::move(tokenizer));
  model.grammars = std::make_shared<const ModelGrammars>(model.tokenizer);
  model.prompt_cache = std::make_shared<PromptCache>(kPromptCacheBytesMax);
  auto chat_template = ChatTemplate::Load(directory, model.tokenizer);
  if (absl::IsNotFound(chat_template.status())) return model;
  BALEEN_ASSIGN_OR_RETURN(model.chat_template, std::move(chat_template));
  return model;
}

void WarnOfMissing(const ModelText& model) {
  if (model.tokenizer == nullptr) {
    log::Warning("no tokenizer.json: the model takes and gives token ids only",
                 {{"model", model.name}});
  } else if (model.chat_template == nullptr) {
    log::Warning("no chat template: the model takes no conversations", {{"model", model.name}});
  }
}

}  // namespace

absl::StatusOr<Models> Models::Load(const std::vector<std::string>& directories) {
  Models result;
  for (const std::string& directory : directories) {
    BALEEN_ASSIGN_OR_RETURN(std::string name, NameOf(directory));
    if (result.Find(name).ok()) {
      return absl::InvalidArgumentError(fmt::format("two model directories are named '{}'", name));
    }
    absl::StatusOr<ModelText> text = LoadModelText(std::move(name), directory);
    if (!text.ok()) return WithDirectory(directory, text.status());
    WarnOfMissing(*text);
    result.models_.push_back(std::make_unique<const ModelText>(*std::move(text)));
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
    const std::int32_t id_end = model->tokenizer ? model->tokenizer->table().id_end() : 0;
    served.push_back({.name = model->name, .token_ids = static_cast<std::uint32_t>(id_end)});
  }
  return served;
}

}  // namespace baleen::router
