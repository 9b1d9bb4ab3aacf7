// Output that nobody gets is a failure, whoever asked for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/integration/program.h"
#include "tests/integration/test_cluster.h"

namespace baleen::integration {
namespace {

using ::testing::EndsWith;

// `arguments` of baleen, as a shell runs them with `redirection`.
ProgramResult RunRedirected(const std::string& arguments, const std::string& redirection) {
  return RunProgram("/bin/sh", {"-c", BinaryPath("baleen") + " " + arguments + " " + redirection});
}

class FullDisk : public ::testing::TestWithParam<const char*> {};

// What could not be written was lost without a word, with exit code 0.
TEST_P(FullDisk, IsAnError) {
  const ProgramResult result = RunRedirected(GetParam(), ">/dev/full");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "error: standard output: No space left on device\n");
}

INSTANTIATE_TEST_SUITE_P(
    Commands, FullDisk,
    ::testing::Values("--help", "--version", "doctor", "doctor --json",
                      "generate --model models/nano --token-ids 0,5,6 --max-tokens 3",
                      "generate --model models/nano --token-ids 0,5,6 --max-tokens 3 --json"));

TEST(LostOutput, EndsAReplyThatAClusterStreams) {
  const std::string router = "--router " + MixedCluster().grpc();
  for (const std::string& arguments :
       {"generate " + router + " --token-ids 0,5,6 --max-tokens 4000 --ignore-eos",
        "generate " + router + " --token-ids 0,5,6 --max-tokens 3 --json",
        "chat " + router + " --once 'What is 2 + 3?'",
        "chat " + router + " --once 'What is 2 + 3?' --json"}) {
    const ProgramResult result = RunRedirected(arguments, ">/dev/full");
    EXPECT_EQ(result.exit_code, 1) << arguments;
    EXPECT_THAT(result.err, EndsWith("error: standard output: No space left on device\n"));
  }
}

// A cluster kept running although nobody knew its address.
TEST(LostOutput, StopsAClusterWhoseAddressIsLost) {
  const ProgramResult result = RunRedirected(
      "up --model models/nano --mixed 1 --json --log-level error --die-with-parent", ">/dev/full");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, EndsWith("error: standard output: No space left on device\n"));
}

TEST(LostOutput, StopsARouterAndAWorker) {
  for (const std::string& program :
       {BinaryPath("baleen-router") + " --model models/nano",
        BinaryPath("baleen-worker") + " --model models/nano --router 127.0.0.1:1"}) {
    const ProgramResult result =
        RunProgram("/bin/sh", {"-c", "exec " + program + " --log-level error >/dev/full"});
    EXPECT_EQ(result.exit_code, 1) << program;
    EXPECT_EQ(result.err, "error: standard output: No space left on device\n");
  }
}

// Sockets and files of ours took the place of streams that were closed from the start.
TEST(ClosedStreams, AreNotTakenByOthers) {
  const std::string arguments = "generate --model models/nano --token-ids 0,5,6 --max-tokens 3";
  const std::string good = RunRedirected(arguments, "").out;
  EXPECT_EQ(RunRedirected(arguments, "<&-").out, good);
  EXPECT_EQ(RunRedirected(arguments, "2>&-").out, good);
  const ProgramResult lost = RunRedirected(arguments, ">&-");
  EXPECT_EQ(lost.exit_code, 1);
  EXPECT_EQ(lost.err, "error: standard output: Bad file descriptor\n");
}

}  // namespace
}  // namespace baleen::integration
