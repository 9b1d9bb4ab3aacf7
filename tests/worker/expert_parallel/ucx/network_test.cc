// Two ranks in two network namespaces, over TCP: joined by a veth pair, and by a relay that delays
// every packet by a millisecond and drops one in a hundred. Every rank compares all outputs with
// what experts make of them. Needs root and TUN devices: says so, and skips, where they are not.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <random>
#include <sstream>
#include <thread>

#include "tests/worker/expert_parallel/ucx/exchange_processes.h"

namespace baleen::worker {
namespace {

using Time = std::chrono::steady_clock::time_point;

// Runs a command whose words are separated by spaces.
bool Shell(const std::string& command) {
  std::istringstream words(command);
  return RunQuietly({std::istream_iterator<std::string>(words), {}});
}

// Two namespaces, each with a device "exchange" to be.
class Namespaces {
 public:
  Namespaces() {
    for (int side : {0, 1}) made_ = Shell("ip netns add " + Name(side)) && made_;
  }
  ~Namespaces() {
    for (int side : {0, 1}) Shell("ip netns del " + Name(side));
  }
  bool made() const { return made_; }

  static std::string Name(int side) {
    return "baleen-" + std::to_string(getpid()) + "-" + std::to_string(side);
  }
  // Moves `device` into its namespace and brings it up as 10.177.0.1 or 10.177.0.2.
  static bool Give(int side, const std::string& device) {
    const std::string in = "ip -n " + Name(side) + " ";
    const std::string own = "10.177.0." + std::to_string(side + 1);
    return Shell("ip link set " + device + " netns " + Name(side)) &&
           Shell(in + "link set " + device + " name exchange") && Shell(in + "link set lo up") &&
           Shell(in + "addr add " + own + "/24 dev exchange") && Shell(in + "link set exchange up");
  }

 private:
  bool made_ = true;
};

// Carries packets between two TUN devices, late and not all of them.
class Relay {
 public:
  static constexpr std::chrono::microseconds kDelay{1000};

  bool Start() {
    for (int side : {0, 1}) {
      tun_[side] = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
      ifreq request{};
      request.ifr_flags = IFF_TUN | IFF_NO_PI;
      const std::string name =
          "bl" + std::to_string(getpid() % 1000000) + "-" + std::to_string(side);
      std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
      if (tun_[side] < 0 || ioctl(tun_[side], TUNSETIFF, &request) != 0) return false;
      if (!Namespaces::Give(side, name)) return false;
    }
    thread_ = std::jthread([this] { Carry(); });
    return true;
  }
  ~Relay() {
    const std::uint64_t one = 1;
    if (write(stop_, &one, sizeof(one)) < 0) std::abort();
    if (thread_.joinable()) thread_.join();
    for (const int tun : tun_) {
      if (tun >= 0) close(tun);
    }
    close(stop_);
  }
  int dropped() const { return dropped_; }

 private:
  struct Packet {
    Time due;
    int to;
    std::vector<char> bytes;
  };

  void Carry() {
    std::mt19937 random(7);
    for (;;) {
      timespec wait{.tv_sec = 10};
      if (!late_.empty()) {
        const auto left = std::max(late_.front().due - std::chrono::steady_clock::now(),
                                   std::chrono::nanoseconds(0));
        wait = {.tv_nsec = std::chrono::nanoseconds(left).count()};
      }
      pollfd events[] = {{tun_[0], POLLIN, 0}, {tun_[1], POLLIN, 0}, {stop_, POLLIN, 0}};
      ppoll(events, 3, &wait, nullptr);
      if (events[2].revents != 0) return;
      for (int side : {0, 1}) Take(side, random);
      const Time now = std::chrono::steady_clock::now();
      while (!late_.empty() && late_.front().due <= now) {
        const Packet& packet = late_.front();
        if (write(tun_[packet.to], packet.bytes.data(), packet.bytes.size()) < 0) ++dropped_;
        late_.pop_front();
      }
    }
  }

  void Take(int side, std::mt19937& random) {
    char buffer[1 << 16];
    for (ssize_t size; (size = read(tun_[side], buffer, sizeof(buffer))) > 0;) {
      if (random() % 100 == 0) {
        ++dropped_;
      } else {
        late_.push_back(
            {std::chrono::steady_clock::now() + kDelay, 1 - side, {buffer, buffer + size}});
      }
    }
  }

  int tun_[2] = {-1, -1};
  const int stop_ = eventfd(0, EFD_CLOEXEC);
  std::deque<Packet> late_;
  std::atomic<int> dropped_ = 0;
  std::jthread thread_;
};

// Runs two ranks, one in each namespace. The seconds from the first address to the last end.
double RunRanks(int steps, int rows) {
  std::vector<std::unique_ptr<ExchangeProcess>> ranks;
  for (int rank : {0, 1}) {
    ranks.push_back(std::make_unique<ExchangeProcess>(std::vector<std::string>{
        "ip", "netns", "exec", Namespaces::Name(rank), "env", "UCX_NET_DEVICES=exchange",
        EXCHANGE_PEER, std::to_string(rank), "2", std::to_string(steps), std::to_string(rows),
        "20000", "messages"}));
  }
  std::vector<std::string> addresses;
  for (const auto& rank : ranks) addresses.push_back(rank->Await("address "));
  const Time begin = std::chrono::steady_clock::now();
  for (const auto& rank : ranks) {
    for (const std::string& address : addresses) rank->Tell(address);
  }
  for (const auto& rank : ranks) EXPECT_THAT(rank->Await("end "), testing::EndsWith(" OK"));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(ExchangeNetwork, RanksOfTwoNetworksExchangeTheSameBytes) {
  Namespaces namespaces;
  if (!namespaces.made()) GTEST_SKIP() << "network namespaces need root and iproute2";
  const std::string pair = "bl" + std::to_string(getpid() % 1000000) + "-v";
  if (!Shell("ip link add " + pair + "0 type veth peer name " + pair + "1")) {
    GTEST_SKIP() << "no veth devices here";
  }
  ASSERT_TRUE(Namespaces::Give(0, pair + "0") && Namespaces::Give(1, pair + "1"));
  RunRanks(50, 200);
}

// A step of two layers waits for three exchanges, each of some packets in each direction. A lost
// packet costs its sender's retransmission, 0.2 s and more when nothing follows it.
TEST(ExchangeNetwork, LatePacketsAndLostOnesCostTheirTimeAndNoMore) {
  Namespaces namespaces;
  if (!namespaces.made()) GTEST_SKIP() << "network namespaces need root and iproute2";
  Relay relay;
  if (!relay.Start()) GTEST_SKIP() << "no TUN devices here";
  constexpr int kSteps = 40;
  const double seconds = RunRanks(kSteps, 60);
  EXPECT_GT(relay.dropped(), 0) << "packets have been lost";
  const double delays = 0.001 * kSteps * 5 * 6;  // exchanges of a step, crossings of an exchange
  EXPECT_LT(seconds, 2 + delays + 0.5 * relay.dropped());
  RecordProperty("seconds", std::to_string(seconds));
  RecordProperty("dropped", relay.dropped());
}

}  // namespace
}  // namespace baleen::worker
