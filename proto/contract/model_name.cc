#include "proto/contract/model_name.h"

#include <filesystem>
#include <system_error>

namespace baleen::contract {

std::string ModelNameOf(const std::string& directory) {
  std::error_code error;  // no current directory: what is written must do
  std::filesystem::path path = std::filesystem::absolute(directory, error);
  if (error) path = directory;
  path = path.lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

}  // namespace baleen::contract
