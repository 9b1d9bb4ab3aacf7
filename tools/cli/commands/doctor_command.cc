#include "tools/cli/commands/doctor_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "observability/process/command_line.h"
#include "tools/cli/client/request_options.h"
#include "tools/cli/cluster/spec/cluster_spec.h"
#include "tools/cli/doctor/data_plane_check.h"
#include "tools/cli/doctor/machine_checks.h"
#include "tools/cli/session/cluster_options.h"
#include "tools/cli/session/exit_code.h"
#include "worker/host.h"

namespace baleen::cli {

void AddDoctorOptions(CLI::App& command, DoctorOptions& options) {
  command.add_option("--model", options.model_directory, "Directory of a model to check as well")
      ->type_name("DIR");
  AddTopology(command, "--workers", options.demand.workers,
              "Groups x ranks to run here, 2x4, 2 = 2x1 [2]")
      ->check(CLI::Validator(
          [](const std::string& text) { return text == "0" ? "from 1 worker on" : ""; }, ""));
  command.add_option("--kv-blocks", options.demand.kv_blocks, "KV blocks of each [one context]")
      ->type_name("N")
      ->check(WholeNumber(0, kKvBlocksMax));
  command.add_option("--listen", options.listen, "Address to be listened on [127.0.0.1:0]")
      ->type_name("HOST:PORT")
      ->check(process::HostPort());
  command.add_flag("--json", options.json, "The findings as one line of JSON");
}

int RunDoctor(const DoctorOptions& options) {
  Checks checks = {CheckCpuFeatures(), CheckExecutables()};
  if (options.model_directory.empty()) {
    checks.push_back(CheckMemory(worker::AvailableMemoryBytes(), 0));
  }
  checks.push_back(CheckSharedMemory(SharedMemoryFreeBytes()));
  checks.push_back(CheckOpenFiles(OpenFilesLimit()));
  checks.push_back(CheckListen(options.listen));
  checks.push_back(CheckDataPlane());
  // A CPU that is too old would stop at the first instruction of the model.
  if (!options.model_directory.empty() && checks.front().level != CheckLevel::kBad) {
    for (Check& check : CheckModel(options.model_directory, options.demand)) {
      checks.push_back(std::move(check));
    }
  }
  WriteAll(STDOUT_FILENO,
           options.json ? ToJson(checks) + "\n" : ToText(checks, Style(ColoursOn(STDOUT_FILENO))));
  return AllWell(checks) ? kExitGood : kExitFailed;
}

}  // namespace baleen::cli
