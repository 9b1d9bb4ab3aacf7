// Where UCX's own messages go: into our log. By itself UCX writes them to standard output, which
// belongs to a process's ready line.
#pragma once

namespace baleen::worker {

// Call before anything else of UCX; any number of times, from any thread. UCX_LOG_LEVEL still
// decides what UCX says.
void TakeUcxLog();

}  // namespace baleen::worker
