#include "tools/cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "tools/cli/access/certs_command.h"
#include "tools/cli/access/keys_command.h"
#include "tools/cli/commands/chat_command.h"
#include "tools/cli/commands/demo_command.h"
#include "tools/cli/commands/doctor_command.h"
#include "tools/cli/commands/generate_command.h"
#include "tools/cli/commands/placement_command.h"
#include "tools/cli/commands/up_command.h"
#include "tools/cli/session/exit_code.h"

namespace baleen::cli {
namespace {

constexpr std::size_t kOptionColumn = 34;  // names and values end before it, descriptions begin

template <typename Options>
struct Command {
  const char* name;
  const char* description;
  void (*declare)(CLI::App&, Options&);
  int (*run)(const Options&);
};

// Without blank lines: it is to fit a screen.
std::string Compact(std::string help) {
  for (std::size_t at = help.find("\n\n"); at != help.npos; at = help.find("\n\n", at)) {
    help.erase(at, 1);
  }
  return help;
}

// The command's options live as long as the parsed command line.
template <typename Options>
void Add(const Command<Options>& command, CLI::App& app, ParsedCommandLine& parsed) {
  CLI::App* sub = app.add_subcommand(command.name, command.description);
  sub->get_formatter()->column_width(kOptionColumn);
  auto options = std::make_shared<Options>();
  command.declare(*sub, *options);
  sub->callback([&parsed, options, run = command.run] {
    parsed.run = [options, run] { return run(*options); };
  });
}

}  // namespace

ParsedCommandLine ParseCommandLine(int argument_count, const char* const* arguments) {
  ParsedCommandLine parsed;
  CLI::App app("Baleen serves DeepSeek-R1-class models on one machine or many.", "baleen");
  app.set_version_flag("--version", std::string("baleen ") + BALEEN_VERSION);
  app.require_subcommand(1);
  Add(Command<UpOptions>{"up", "Run a cluster on this machine", AddUpOptions, RunUp}, app, parsed);
  Add(Command<DemoOptions>{"demo", "Run a cluster, ask it a question, show figures", AddDemoOptions,
                           RunDemo},
      app, parsed);
  Add(Command<ChatOptions>{"chat", "Talk to a cluster", AddChatOptions, RunChat}, app, parsed);
  Add(Command<GenerateOptions>{"generate", "Continue a text or ids, by a cluster or here",
                               AddGenerateOptions, RunGenerate},
      app, parsed);
  Add(Command<PlacementOptions>{"placement", "Place a group's experts by their load",
                                AddPlacementOptions, RunPlacement},
      app, parsed);
  Add(Command<KeysOptions>{"keys", "Make and remove the API keys of a router", AddKeysOptions,
                           RunKeys},
      app, parsed);
  Add(Command<CertsOptions>{"certs", "Make certificates of one's own for a cluster",
                            AddCertsOptions, RunCerts},
      app, parsed);
  Add(Command<DoctorOptions>{"doctor", "Say what this machine lacks and how to fix it",
                             AddDoctorOptions, RunDoctor},
      app, parsed);
  try {
    app.parse(argument_count, const_cast<char**>(arguments));
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    parsed.out = chosen.empty() ? app.help() : Compact(chosen[0]->help("baleen"));
  } catch (const CLI::CallForVersion& version) {
    parsed.out = fmt::format("{}\n", version.what());
  } catch (const CLI::ParseError& error) {
    const auto chosen = app.get_subcommands();
    const std::string name = chosen.empty() ? "baleen" : "baleen " + chosen[0]->get_name();
    std::string what = error.what();
    if (chosen.empty() && argument_count > 1 && *arguments[1] != '-') {
      what = fmt::format("there is no command '{}'", arguments[1]);
    }
    parsed.err = fmt::format("error: {} (see '{} --help')\n", what, name);
    parsed.exit_code = kExitUsage;
  }
  return parsed;
}

}  // namespace baleen::cli
