#include "tools/cli/commands/generate_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "tools/cli/client/inference_client.h"
#include "tools/cli/client/render.h"
#include "tools/cli/session/exit_code.h"
#include "tools/cli/session/local_generation.h"
#include "tools/cli/terminal/answer_printer.h"
#include "tools/cli/terminal/line_input.h"

namespace baleen::cli {
namespace {

// "-" reads standard input: prompts may be longer than a command line.
absl::StatusOr<std::string> Content(const std::string& given) {
  if (given != "-") return given;
  return ReadAll(STDIN_FILENO, contract::kMessageBytesMax);
}

absl::StatusOr<v1::GenerateRequest> RequestOf(const GenerateOptions& options) {
  if (options.prompt.has_value() == options.token_ids.has_value()) {
    return absl::InvalidArgumentError("give one of --prompt and --token-ids");
  }
  v1::GenerateRequest request;
  request.set_model(options.model_name);
  if (options.prompt) {
    BALEEN_ASSIGN_OR_RETURN(*request.mutable_text(), Content(*options.prompt));
  } else {
    BALEEN_ASSIGN_OR_RETURN(const std::string text, Content(*options.token_ids));
    BALEEN_ASSIGN_OR_RETURN(const auto ids, ParseTokenIds(text));
    request.mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
  }
  Fill(options.request, *request.mutable_sampling(), *request.mutable_stop());
  request.mutable_stop()->set_ignore_eos(options.ignore_eos);
  if (options.logprobs) request.set_logprobs(*options.logprobs);
  return request;
}

// The text as it comes; the ids at the end when there is no text.
class PlainOutput {
 public:
  void Show(const v1::GenerateChunk& chunk) { printer_.Answer(chunk.delta()); }
  void Finish(const GenerateResult& result) {
    if (result.text.empty()) {
      WriteAll(STDOUT_FILENO, fmt::format("{}", fmt::join(result.token_ids, ",")) + "\n");
    }
    printer_.Finish();
  }

 private:
  AnswerPrinter printer_{StandardOutput()};
};

absl::StatusOr<GenerateResult> Generate(const GenerateOptions& options,
                                        const v1::GenerateRequest& request, PlainOutput* plain) {
  GenerateResult result;
  absl::Status malformed;
  Cancellation cancellation;
  const auto on_chunk = [&](const v1::GenerateChunk& chunk) {
    if (malformed.ok()) malformed = Append(chunk, result);
    if (malformed.ok() && plain != nullptr) plain->Show(chunk);
    if (!malformed.ok() || !StandardOutputStatus().ok()) cancellation.Cancel();
  };
  absl::Status status;
  if (options.model_directory.empty()) {
    BALEEN_ASSIGN_OR_RETURN(const auto client, InferenceClient::Open(options.router));
    status = client->Generate(request, options.request.within(), cancellation, on_chunk);
  } else {
    status = GenerateLocally({.directory = options.model_directory,
                              .request = request,
                              .within = options.request.within()},
                             on_chunk);
  }
  BALEEN_RETURN_IF_ERROR(malformed);
  BALEEN_RETURN_IF_ERROR(status);
  BALEEN_RETURN_IF_ERROR(CheckEnded(result.finish_reason));
  return result;
}

// Where to generate: fills in the router from the environment.
absl::StatusOr<GenerateOptions> Complete(GenerateOptions options) {
  if (!options.model_directory.empty() && !options.router.address.empty()) {
    return absl::InvalidArgumentError("give one of --router and --model");
  }
  if (options.model_directory.empty()) {
    BALEEN_ASSIGN_OR_RETURN(options.router.address, RouterAddress(options.router.address));
  }
  return options;
}

}  // namespace

void AddGenerateOptions(CLI::App& command, GenerateOptions& options) {
  AddRouterOptions(command, options.router);
  command.add_option("--model", options.model_directory, "Or: directory of a model to run here")
      ->type_name("DIR");
  command.add_option("--model-name", options.model_name, "Which of the models [the only one]")
      ->type_name("NAME");
  command.add_option("--prompt", options.prompt, "Text to continue; - reads standard input");
  command.add_option("--token-ids", options.token_ids, "Or: token ids, 1,2,3; - reads them")
      ->type_name("IDS");
  AddRequestOptions(command, options.request);
  command.add_option("--logprobs", options.logprobs, "With --json: the K most probable, 0 to 20")
      ->type_name("K")
      ->check(WholeNumber(0, contract::kLogprobsMax));
  command.add_flag("--ignore-eos", options.ignore_eos, "Do not stop where the model would");
  command.add_flag("--json", options.json, "The reply as one line of JSON");
}

int RunGenerate(const GenerateOptions& given) {
  const auto options = Complete(given);
  if (!options.ok()) return ExitWithUsage(options.status());
  const auto request = RequestOf(*options);
  if (!request.ok()) return ExitWithUsage(request.status());
  for (const auto& [what, text] :
       {std::pair("the prompt", &request->text()), std::pair("--model-name", &request->model())}) {
    if (const absl::Status valid = CheckUtf8(what, *text); !valid.ok()) return ExitWith(valid);
  }
  PlainOutput plain;
  const auto result = Generate(*options, *request, options->json ? nullptr : &plain);
  if (!result.ok()) return ExitWith(result.status());
  if (options->json) {
    WriteAll(STDOUT_FILENO, ToJson(*result) + "\n");
  } else {
    plain.Finish(*result);
  }
  return kExitGood;
}

}  // namespace baleen::cli
