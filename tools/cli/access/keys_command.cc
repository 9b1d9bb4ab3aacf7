#include "tools/cli/access/keys_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "absl/time/time.h"
#include "tools/cli/access/key_file_edits.h"
#include "tools/cli/client/request_options.h"
#include "tools/cli/session/exit_code.h"
#include "tools/cli/terminal/style.h"
#include "tools/cli/terminal/table.h"

namespace baleen::cli {
namespace {

constexpr std::uint32_t kDaysMax = 36'500;

int Add(const KeysOptions& options) {
  if (options.name.empty() || options.tenant.empty()) {
    return ExitWithUsage(absl::InvalidArgumentError("keys add needs --name and --tenant"));
  }
  router::KeyEntry entry;
  entry.caller.key_name = options.name;
  entry.caller.tenant = options.tenant;
  if (options.priority_max) entry.caller.priority_max = *options.priority_max;
  if (options.tokens_per_minute) entry.caller.tokens_per_minute = *options.tokens_per_minute;
  entry.caller.models = options.models;
  if (options.days) entry.expires = absl::Now() + absl::Hours(24) * *options.days;
  const auto key = AddKey(options.file, std::move(entry));
  if (!key.ok()) return ExitWith(key.status());
  WriteAll(STDERR_FILENO, "The key is shown this once; the file has only its hash.\n");
  WriteAll(STDOUT_FILENO, *key + "\n");
  return kExitGood;
}

int List(const KeysOptions& options) {
  const auto entries = ReadKeys(options.file);
  if (!entries.ok()) return ExitWith(entries.status());
  std::string text;
  for (const router::KeyEntry& entry : *entries) {
    const router::Caller& caller = entry.caller;
    text += fmt::format(
        "{}  tenant {}, priority to {}, {}, {}, {}\n", caller.key_name, caller.tenant,
        caller.priority_max,
        caller.tokens_per_minute == 0 ? std::string("no limit of tokens")
                                      : fmt::format("{} tokens/min", caller.tokens_per_minute),
        caller.models.empty() ? std::string("all models")
                              : fmt::format("models {}", fmt::join(caller.models, " ")),
        entry.expires
            ? "until " + absl::FormatTime(absl::RFC3339_sec, *entry.expires, absl::UTCTimeZone())
            : std::string("without end"));
  }
  WriteAll(STDOUT_FILENO, text);
  return kExitGood;
}

int Remove(const KeysOptions& options) {
  if (options.name.empty()) {
    return ExitWithUsage(absl::InvalidArgumentError("keys remove needs --name"));
  }
  return ExitWith(RemoveKey(options.file, options.name));
}

}  // namespace

void AddKeysOptions(CLI::App& command, KeysOptions& options) {
  command.add_option("action", options.action, "add (prints the new key, once), list or remove")
      ->type_name("ACTION")
      ->required()
      ->check(CLI::IsMember({"add", "list", "remove"}).description(""));
  command.add_option("--file", options.file, "Of a router's --api-keys-file")
      ->type_name("FILE")
      ->required();
  command.add_option("--name", options.name, "Of the key")->type_name("NAME");
  command.add_option("--tenant", options.tenant, "Whose requests they are")->type_name("NAME");
  command.add_option("--priority-max", options.priority_max, "Highest priority, 0 to 9 [9]")
      ->type_name("N")
      ->check(WholeNumber(0, contract::kPriorityMax));
  command
      .add_option("--tokens-per-minute", options.tokens_per_minute,
                  "Of the tenant, prompts and replies [no limit]")
      ->type_name("N")
      ->check(WholeNumber(1, router::kTokensPerMinuteMax));
  command.add_option("--models", options.models, "That it may use, A[,B] [all]")
      ->type_name("NAMES")
      ->delimiter(',');
  command.add_option("--days", options.days, "How long it is valid [for ever]")
      ->type_name("N")
      ->check(WholeNumber(1, kDaysMax));
}

int RunKeys(const KeysOptions& options) {
  if (options.action == "add") return Add(options);
  if (options.action == "list") return List(options);
  return Remove(options);
}

}  // namespace baleen::cli
