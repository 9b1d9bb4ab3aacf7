// `baleen generate`: continues a text or token ids, by a cluster or in this process.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tools/cli/client/request_options.h"

namespace baleen::cli {

struct GenerateOptions {
  RouterEndpoint router;  // without an address with model_directory
  std::string model_directory;
  std::string model_name;
  std::optional<std::string> prompt;     // "-" = standard input
  std::optional<std::string> token_ids;  // "1,2,3", "-" = standard input
  std::optional<std::uint32_t> logprobs;
  bool ignore_eos = false;
  bool json = false;
  RequestOptions request;
};

void AddGenerateOptions(CLI::App& command, GenerateOptions& options);

// 0; 1 when the request fails; 2 when the options do not make a request.
int RunGenerate(const GenerateOptions& options);

}  // namespace baleen::cli
