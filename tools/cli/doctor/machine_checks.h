// Is this machine fit to run a cluster: CPU, memory, shared memory, files, ports, executables.
#pragma once

#include <cstdint>
#include <string>

#include "tools/cli/doctor/check.h"

namespace baleen::cli {

Check CheckCpuFeatures();
Check CheckExecutables();

// `needed_bytes`: what the workers would take; 0 = not known.
Check CheckMemory(std::uint64_t available_bytes, std::uint64_t needed_bytes);

// Of a file system in memory, which UCX needs between processes of one machine.
Check CheckSharedMemory(std::uint64_t free_bytes);
std::uint64_t SharedMemoryFreeBytes();  // 0 when there is none

// Limit of open files, as of ulimit -n.
Check CheckOpenFiles(std::uint64_t limit);
std::uint64_t OpenFilesLimit();

// Whether a server can listen on `address` (host:port) and be reached there. Port 0 = any.
Check CheckListen(const std::string& address);

}  // namespace baleen::cli
