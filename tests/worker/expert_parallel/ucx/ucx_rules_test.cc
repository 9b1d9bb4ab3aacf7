// What a rank does when a peer, its address or its memory is not what it should be: one real
// endpoint, and a peer of this test that says what it likes.
#include <gmock/gmock.h>

#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "worker/expert_parallel/ucx/shared_memory.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"
#include "worker/expert_parallel/ucx/ucx_fabric.h"
#include "worker/expert_parallel/ucx/wire/exchange_frames.h"
#include "worker/expert_parallel/ucx/wire/mailbox.h"

namespace baleen::worker {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kEpoch = 7;
constexpr std::uint64_t kKey = 0x5eed;

AllToAllShape Shape() {
  return {.ranks = 2,
          .slots_per_rank = 4,
          .slots_per_row = 3,
          .row_bytes = 16,
          .output_bytes = 8,
          .rows_max = 17,
          .wait_max = absl::Seconds(20)};
}

std::string Text(const absl::Status& status) { return status.ToString(); }

// Rank 1: connects as it should, and then says what it is told to.
class Liar : private FabricSink {
 public:
  // `memory`: it pretends to be able to share memory, with these numbers of process and files.
  explicit Liar(PendingUcxEndpoint& honest, bool memory = false)
      : its_card_(ReadJoinCard(honest.address(), 0).value()),
        fabric_(UcxFabric::Create(*this, "").value()) {
    JoinCard card = its_card_;
    card.rank = 1;
    card.key = kKey;
    card.ucx_address = fabric_->address();
    if (!memory) card.machine += 1;
    address_ = WriteJoinCard(card);
  }

  const std::string& address() const { return address_; }
  const std::optional<ExchangeFrame>& its_hello() const { return its_hello_; }

  ExchangeFrame Frame(FrameKind kind) const {
    return MakeFrame(kind, {.rank = 1, .ranks = 2, .epoch = kEpoch, .key = kKey}, its_card_.key);
  }

  void Say(const ExchangeFrame& frame, std::vector<std::byte> payload = {}) {
    said_.push_back(std::make_unique<Said>());
    said_.back()->message.frame = frame;
    said_.back()->payload = std::move(payload);
    fabric_->Send(0, said_.back()->message, said_.back()->payload);
  }

  void SayHello(const ExchangeFrame& hello) {
    EXPECT_TRUE(fabric_->Connect(0, its_card_.ucx_address).ok());
    Say(hello);
  }

  // Until what it has said is on its way.
  void Flush() { fabric_->Flush(absl::Seconds(10)); }

  // Answers until `done`.
  void Answer(const std::atomic<bool>& done) {
    bool ready = false;
    while (!done) {
      fabric_->Progress();
      if (its_hello_ && !std::exchange(ready, true)) Say(Frame(FrameKind::kReady));
      fabric_->Wait(absl::Milliseconds(1));
    }
  }

 private:
  struct Said {
    OutgoingMessage message;
    std::vector<std::byte> payload;
  };

  IncomingMessage* OnMessage(std::span<const std::byte> header, std::size_t) override {
    const auto frame = ReadFrame(header, {.rank = 1, .ranks = 2, .epoch = kEpoch, .key = kKey});
    if (frame && frame->kind == FrameKind::kHello) its_hello_ = frame;
    return nullptr;
  }
  void OnReceived(IncomingMessage&) override {}
  void OnPeerLost(std::int32_t, const std::string&) override {}

  const JoinCard its_card_;
  std::string address_;
  std::optional<ExchangeFrame> its_hello_;
  std::vector<std::unique_ptr<Said>> said_;
  std::unique_ptr<UcxFabric> fabric_;
};

std::unique_ptr<PendingUcxEndpoint> Pending(std::int32_t rank) {
  return PendingUcxEndpoint::Create(
             {.shape = Shape(), .rank = rank, .connect_max = absl::Seconds(20)})
      .value();
}

class UcxRules : public testing::Test {
 protected:
  // Connects rank 0 to the liar, which says `hello`.
  absl::Status Connect(bool memory = false, std::function<void(ExchangeFrame&)> hello = {}) {
    pending_ = Pending(0);
    liar_ = std::make_unique<Liar>(*pending_, memory);
    ExchangeFrame frame = liar_->Frame(FrameKind::kHello);
    if (hello) hello(frame);
    liar_->SayHello(frame);
    absl::Status status;
    std::atomic<bool> done = false;
    std::jthread connecting([&] {
      auto endpoint =
          pending_->ConnectUcx(kEpoch, std::vector{pending_->address(), liar_->address()});
      status = endpoint.status();
      if (endpoint.ok()) endpoint_ = *std::move(endpoint);
      done = true;
    });
    liar_->Answer(done);
    return status;
  }

  // The error of rank 0 once it has heard `frame`, after its dispatch of one row for rank 1.
  std::string ErrorAfter(const ExchangeFrame& frame, std::vector<std::byte> payload = {}) {
    EXPECT_EQ(Connect(), absl::OkStatus());
    liar_->Say(frame_with_key(frame), std::move(payload));
    liar_->Flush();
    const std::vector<std::byte> x(16);
    const std::vector<std::int32_t> slots = {4, 5, 6};
    absl::Status status =
        endpoint_->StartDispatch(0, {.count = 1, .x = x.data(), .slots = slots.data()});
    if (status.ok()) status = endpoint_->FinishDispatch(0).status();
    EXPECT_EQ(endpoint_->OpenStep({.epoch = kEpoch, .step = 1}).status(), status) << "broken";
    return Text(status);
  }
  ExchangeFrame frame_with_key(ExchangeFrame frame) const {
    frame.key = liar_->Frame(FrameKind::kHello).key;
    return frame;
  }

  static ExchangeFrame Frame(FrameKind kind, std::uint64_t number, std::uint32_t rows = 0,
                             std::uint32_t entries = 0) {
    ExchangeFrame frame = MakeFrame(kind, {.rank = 1, .ranks = 2, .epoch = kEpoch}, 0);
    frame.number = number;
    frame.rows = rows;
    frame.entries = entries;
    return frame;
  }
  // One row and its entries.
  static std::vector<std::byte> Row(std::vector<PlannedEntry> entries) {
    std::vector<std::byte> bytes(16 + entries.size() * sizeof(PlannedEntry));
    std::memcpy(bytes.data() + 16, entries.data(), entries.size() * sizeof(PlannedEntry));
    return bytes;
  }

  std::unique_ptr<PendingUcxEndpoint> pending_;
  std::unique_ptr<Liar> liar_;
  std::unique_ptr<UcxEndpoint> endpoint_;
};

TEST_F(UcxRules, LengthsAndNumbersOutOfRangeAreNamed) {
  const std::string begin = "FAILED_PRECONDITION: all-to-all: rank 1 breaks the rules in the ";
  using enum FrameKind;
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 1, 18, 18)), begin + "dispatch: rows 18, not 0 to 17");
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 1, 1, 4)), begin + "dispatch: entries 4, not 1 to 3");
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 1, 1, 1), std::vector<std::byte>(29)),
            begin + "dispatch: bytes 29, not 28 to 28");
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 2, 1, 1), Row({{.slot = 0}})),
            begin + "dispatch: dispatch 2, not 1 to 1");
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 1, 1, 1), Row({{.slot = 4}})),
            begin + "dispatch: an expert slot 4, not 0 to 3");
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 1, 1, 1), Row({{.row = 1}})),
            begin + "dispatch: a row 1, not 0 to 0");
  EXPECT_EQ(ErrorAfter(Frame(kDispatch, 1, 1, 1), Row({{.output = 51}})),
            begin + "dispatch: a place for an output 51, not 0 to 50");
  EXPECT_EQ(ErrorAfter(Frame(kOpening, 5)), begin + "step barrier: opening 5, not 1 to 1");
  EXPECT_EQ(ErrorAfter(Frame(kCombine, 1), std::vector<std::byte>(25)),
            begin + "combine: bytes 25, not 24 to 24");
  EXPECT_EQ(ErrorAfter(Frame(kCombine, 2), std::vector<std::byte>(24)),
            begin + "combine: combine 2, not 1 to 1");
}

TEST_F(UcxRules, StrangersAndOtherEpochsAreDroppedAndCounted) {
  ASSERT_EQ(Connect(), absl::OkStatus());
  ExchangeFrame opening = liar_->Frame(FrameKind::kOpening);
  opening.number = 1;
  opening.step_epoch = kEpoch;
  opening.step = 1;
  const ExchangeFrame good = opening;
  for (const auto spoil : {+[](ExchangeFrame& frame) { frame.epoch -= 1; },
                           +[](ExchangeFrame& frame) { frame.key += 1; },
                           +[](ExchangeFrame& frame) { frame.rank = 2; },
                           +[](ExchangeFrame& frame) { frame.rank = 0; },
                           +[](ExchangeFrame& frame) { frame.magic = 0; }}) {
    ExchangeFrame bad = good;
    spoil(bad);
    liar_->Say(bad);
  }
  liar_->Say(good);
  liar_->Flush();
  EXPECT_TRUE(endpoint_->OpenStep({.epoch = kEpoch, .step = 1}).ok());
  EXPECT_EQ(endpoint_->dropped_frames(), 5u);
}

TEST_F(UcxRules, APeerInAnotherEpochIsNamed) {
  const absl::Status status = Connect(false, [](ExchangeFrame& hello) { hello.epoch = 6; });
  EXPECT_EQ(Text(status),
            "FAILED_PRECONDITION: all-to-all: rank 1 is in epoch 6, this rank 0 in epoch 7");
}

// No process, another one, a file descriptor of something else: rows go as messages then.
TEST_F(UcxRules, MemoryThatIsNotThePeersIsNotMapped) {
  for (const std::int64_t process : {1, getpid(), -1}) {
    ASSERT_EQ(Connect(true,
                      [&](ExchangeFrame& hello) {
                        hello.number = process;
                        hello.rows = 0;
                        hello.entries = 1;
                      }),
              absl::OkStatus());
    EXPECT_EQ(endpoint_->mapped_peers(), 0);
  }
}

// A peer of this machine writes what it likes into its mailbox.
TEST_F(UcxRules, AMailboxIsNotBelieved) {
  const struct {
    std::function<void(Mailbox&)> write;
    const char* says;
  } lies[] = {
      {[](Mailbox& box) { box.lanes[0].dispatches = 7; }, "count 7, not 1 to 1"},
      {[](Mailbox& box) { box.lanes[0].rows = 18; }, "rows 18, not 0 to 17"},
      {[](Mailbox& box) { box.lanes[0].entries = 4'000'000'000; },
       "entries 4000000000, not 0 to 0"},
  };
  const MailboxLayout layout = MailboxLayout::Of(Shape()).value();
  for (const auto& lie : lies) {
    ASSERT_EQ(Connect(true), absl::OkStatus());
    const ExchangeFrame hello = *liar_->its_hello();
    auto memory = SharedMemory::Open(static_cast<pid_t>(hello.number), static_cast<int>(hello.rows),
                                     layout.stride);
    ASSERT_TRUE(memory);
    auto& mailbox = *reinterpret_cast<Mailbox*>(memory->data());
    ASSERT_TRUE(endpoint_->StartDispatch(0, {}).ok());
    lie.write(mailbox);
    std::uint64_t none = 0;
    mailbox.lanes[0].dispatches.compare_exchange_strong(none, 1);
    EXPECT_THAT(Text(endpoint_->FinishDispatch(0).status()), HasSubstr(lie.says));
  }
}

TEST_F(UcxRules, AddressesThatDoNotFitAreRefused) {
  const auto connect = [&](std::function<void(std::vector<std::string>&)> spoil) {
    const auto rank = Pending(0);
    const auto peer = Pending(1);
    std::vector<std::string> addresses = {rank->address(), peer->address()};
    spoil(addresses);
    return Text(rank->ConnectUcx(kEpoch, addresses).status());
  };
  const auto with_card = [&](auto change) {
    return connect([&](std::vector<std::string>& addresses) {
      JoinCard card = ReadJoinCard(addresses[1], 1).value();
      change(card);
      addresses[1] = WriteJoinCard(card);
    });
  };
  EXPECT_EQ(connect([](auto& addresses) { addresses.pop_back(); }),
            "INVALID_ARGUMENT: all-to-all: 1 addresses for 2 ranks");
  EXPECT_EQ(connect([](auto& addresses) { addresses[1] = "?"; }),
            "INVALID_ARGUMENT: all-to-all: the address of rank 1 is not one of this version");
  EXPECT_EQ(connect([](auto& addresses) { addresses[1].pop_back(); }),
            "INVALID_ARGUMENT: all-to-all: the address of rank 1 has another length than it says");
  EXPECT_EQ(connect([](auto& addresses) { addresses[1].resize(5000); }),
            "INVALID_ARGUMENT: all-to-all: the address of rank 1 has 5000 bytes, above 4096");
  EXPECT_EQ(connect([](auto& addresses) { addresses[1] = addresses[0]; }),
            "INVALID_ARGUMENT: all-to-all: the address of rank 1 is that of rank 0");
  EXPECT_EQ(with_card([](JoinCard& card) { card.shape.rows_max = 16; }),
            "INVALID_ARGUMENT: all-to-all: rank 1 was started with 16 rows of a rank, this rank 0 "
            "with 17");
}

TEST_F(UcxRules, APeerThatDoesNotConnectIsNamed) {
  const auto rank = PendingUcxEndpoint::Create(
                        {.shape = Shape(), .rank = 0, .connect_max = absl::Milliseconds(50)})
                        .value();
  const auto peer = Pending(1);
  EXPECT_EQ(Text(rank->ConnectUcx(kEpoch, std::vector{rank->address(), peer->address()}).status()),
            "DEADLINE_EXCEEDED: all-to-all: waited 50ms for rank 1 to connect");
}

// Row numbers count through the mailboxes of all sources.
TEST(MailboxLayout, RefusesWhatCanNotBeNumbered) {
  AllToAllShape shape = Shape();
  shape.ranks = 1024;
  shape.rows_max = 1 << 16;
  shape.slots_per_row = shape.slots_per_rank = 64;
  shape.row_bytes = 1;
  EXPECT_THAT(Text(MailboxLayout::Of(shape).status()), HasSubstr("row numbers, above 2147483647"));
}

}  // namespace
}  // namespace baleen::worker
