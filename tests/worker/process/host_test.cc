// What the worker asks of the machine.
#include "worker/host.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace baleen::worker {
namespace {

TEST(Host, ThisMachineWillDo) {
  EXPECT_TRUE(CheckCpu().ok()) << CheckCpu();
  EXPECT_GT(AvailableMemoryBytes(), 1u << 20);
}

TEST(Host, MeminfoIsReadByKey) {
  constexpr char kText[] = "MemTotal:  100 kB\nMemFree: 7 kB\nMemAvailable:\t  42 kB\nOdd:\n";
  EXPECT_EQ(MeminfoBytes(kText, "MemTotal"), 100u * 1024);
  EXPECT_EQ(MeminfoBytes(kText, "MemAvailable"), 42u * 1024);
  EXPECT_EQ(MeminfoBytes(kText, "Mem"), 0u);
  EXPECT_EQ(MeminfoBytes(kText, "Odd"), 0u);
  EXPECT_EQ(MeminfoBytes("", "MemTotal"), 0u);
}

// In a child, whose signal mask is its own business.
template <typename Body>
int ExitCodeOf(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Host, StopSignalsWaitToBeAskedFor) {
  EXPECT_EQ(ExitCodeOf([] {
              BlockStopSignals();
              if (AwaitStopSignal(absl::ZeroDuration())) return 1;
              kill(getpid(), SIGTERM);
              if (!AwaitStopSignal(absl::Seconds(30))) return 2;
              kill(getpid(), SIGINT);
              return AwaitStopSignal(absl::Seconds(30)) ? 0 : 3;
            }),
            0);
}

TEST(Host, AChildGoesWithItsParent) {
  int alive[2];
  ASSERT_EQ(pipe(alive), 0);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const pid_t middle = getpid();
    if (fork() == 0) {  // holds the write end of `alive` until it dies
      close(alive[0]);
      const bool in_time = DieWithParent(middle);
      if (write(ready[1], in_time ? "y" : "n", 1) != 1) _exit(1);
      while (true) pause();
    }
    while (true) pause();
  }
  close(alive[1]);
  close(ready[1]);
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_EQ(read(alive[0], &answer, 1), 0) << "the end of the pipe: all who held it are gone";
  close(alive[0]);
  close(ready[0]);
}

TEST(Host, AParentThatIsGoneAlreadyIsNoticed) {
  EXPECT_EQ(ExitCodeOf([] { return DieWithParent(getppid()) ? 0 : 1; }), 0);
  EXPECT_EQ(ExitCodeOf([] { return DieWithParent(getppid() + 1) ? 0 : 1; }), 1);
}

}  // namespace
}  // namespace baleen::worker
