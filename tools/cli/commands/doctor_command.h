// `baleen doctor`: what this machine, and a model directory, lack to run a cluster, and how to fix
// it.
#pragma once

#include <string>

#include "tools/cli/doctor/model_checks.h"

namespace CLI {
class App;
}

namespace baleen::cli {

struct DoctorOptions {
  std::string model_directory;  // empty = the machine only
  ModelDemand demand;
  std::string listen = "127.0.0.1:0";
  bool json = false;
};

void AddDoctorOptions(CLI::App& command, DoctorOptions& options);

// 0 when a cluster can run here, else 1.
int RunDoctor(const DoctorOptions& options);

}  // namespace baleen::cli
