// The log's thread: callers never wait for stderr, and nothing that waits is lost at the end.
#include "observability/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>

#include "observability/base/check.h"

namespace baleen::log {
namespace {

// stderr leads into a pipe that nobody reads until the test says so.
class StalledStderr {
 public:
  StalledStderr() : real_(dup(STDERR_FILENO)) {
    std::array<int, 2> ends = {};
    BALEEN_CHECK(pipe(ends.data()) == 0, "a test has two file descriptors");
    read_end_ = ends[0];
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
  }

  // Reads all that is written from now on; the text comes with End.
  void Read() {
    reader_ = std::jthread([this] {
      std::array<char, 4096> piece;
      for (ssize_t bytes = 0; (bytes = read(read_end_, piece.data(), piece.size())) > 0;) {
        text_.append(piece.data(), static_cast<std::size_t>(bytes));
      }
    });
  }

  std::string End() {
    dup2(real_, STDERR_FILENO);  // the pipe's last writer is gone
    reader_.join();
    close(real_);
    close(read_end_);
    return text_;
  }

 private:
  const int real_;
  int read_end_ = -1;
  std::string text_;
  std::jthread reader_;
};

// A line was written by whoever logged it: a full pipe behind stderr stopped the router's dispatch
// thread, and its leases with it.
TEST(Log, AStalledStderrStopsNobodyAndCountsWhatIsLost) {
  constexpr int kLines = 20'000;
  Init("test", Format::kText, Level::kInfo);
  StalledStderr stalled;
  for (int i = 0; i < kLines; ++i) Info("a line of some length, to fill the pipe", {{"i", i}});
  EXPECT_FALSE(Flush(absl::Milliseconds(1)));
  stalled.Read();
  EXPECT_TRUE(Flush(absl::Minutes(1)));
  std::istringstream text(stalled.End());
  int written = 0;
  int dropped = 0;
  std::string last;
  for (std::string line; std::getline(text, line);) {
    constexpr std::string_view kDropped = "log lines dropped lines=";
    const std::size_t at = line.find(kDropped);
    if (at == std::string::npos) {
      ++written;
    } else {
      dropped += std::stoi(line.substr(at + kDropped.size()));
    }
    last = line;
  }
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(written + dropped, kLines);
  EXPECT_TRUE(last.ends_with(" i=19999")) << last << ": the oldest are dropped";
}

void LogMany() {
  Init("test", Format::kJson, Level::kInfo);
  for (int i = 0; i < 1000; ++i) Info("a line", {{"i", i}});
  Error("last words", {{"why", "a \"reason\""}});
}

TEST(LogDeathTest, TheEndOfTheProcessWritesWhatWaits) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        LogMany();
        std::exit(3);
      },
      testing::ExitedWithCode(3),
      "\"i\":999.*\n.*\"level\":\"error\",\"process\":\"test\",\"event\":\"last words\"");
}

TEST(LogDeathTest, ABrokenInvariantComesAfterTheLinesBeforeIt) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        LogMany();
        BALEEN_CHECK(1 + 1 == 3, "of this test");
      },
      "last words.*\n.*check failed: 1 \\+ 1 == 3: of this test");
}

}  // namespace
}  // namespace baleen::log
