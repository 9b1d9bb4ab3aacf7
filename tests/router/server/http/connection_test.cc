// Connections over real sockets, with a handler that does what its path says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "router/server/http/server.h"

namespace baleen::router::http {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int kWaitMs = 20'000;  // only for what goes wrong

// Paths: /echo answers with its body; /stream sends what Push is given until End; /flood sends as
// much as the client takes.
class PathHandler final : public Handler {
 public:
  std::optional<Response> Refuse(const RequestHead& head) override {
    if (head.path == "/refused") return MakeError(404, "nothing here");
    return std::nullopt;
  }
  std::unique_ptr<Activity> Handle(Request request, Exchange& exchange) override {
    if (request.head.path == "/echo") {
      exchange.Respond({.body = request.body});
      return nullptr;
    }
    exchange.Begin({.content_type = "text/event-stream"});
    auto stream = std::make_unique<Stream>(*this, exchange);
    if (request.head.path == "/flood") {
      stream->OnWritable();
    } else {
      exchange.Send("first");
    }
    return stream;
  }
  Response MakeError(int code, std::string_view why) override {
    return {.code = code, .content_type = "text/plain", .body = std::string(why)};
  }

  // On the loop's thread.
  void Push(std::string_view piece) {
    if (stream_ != nullptr) stream_->exchange.Send(piece);
  }
  void End() {
    if (stream_ != nullptr) stream_->exchange.End();
  }

  std::atomic<int> streams{0};

 private:
  struct Stream final : Activity {
    Stream(PathHandler& owner, Exchange& way) : handler(owner), exchange(way) {
      handler.stream_ = this;
      ++handler.streams;
    }
    ~Stream() override {
      if (handler.stream_ == this) handler.stream_ = nullptr;
      --handler.streams;
    }
    void OnWritable() override {
      while (exchange.writable()) exchange.Send(std::string(4096, 'x'));
    }
    PathHandler& handler;
    Exchange& exchange;
  };
  Stream* stream_ = nullptr;
};

class Client {
 public:
  explicit Client(const std::string& address, int receive_bytes = 0)
      : number_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_bytes > 0) {
      ::setsockopt(number_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port =
        htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    EXPECT_EQ(::connect(number_, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  }
  ~Client() { Close(); }
  Client(const Client&) = delete;

  void Close() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }
  void Send(std::string_view bytes) {
    (void)!::send(number_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // Reads until `end` is seen; everything to the end of the stream when it is empty.
  std::string Read(std::string_view end = "") {
    while (end.empty() || got_.find(end) == got_.npos) {
      pollfd wait = {.fd = number_, .events = POLLIN, .revents = 0};
      if (::poll(&wait, 1, kWaitMs) != 1) {
        ADD_FAILURE() << "nothing more comes after: " << got_;
        break;
      }
      char bytes[65536];
      const ssize_t read = ::recv(number_, bytes, sizeof(bytes), 0);
      if (read <= 0) break;
      got_.append(bytes, static_cast<std::size_t>(read));
    }
    if (end.empty()) return std::exchange(got_, "");
    const std::size_t size = std::min(got_.size(), got_.find(end) + end.size());
    std::string part = got_.substr(0, size);
    got_.erase(0, size);
    return part;
  }

 private:
  int number_;
  std::string got_;
};

class ConnectionTest : public ::testing::Test {
 protected:
  ConnectionTest() {
    options_.tick = absl::Milliseconds(1);
    options_.body_bytes_max = 1000;
  }
  ~ConnectionTest() override {
    if (server_ != nullptr) server_->Stop();
  }

  const std::string& Start() {
    auto server = Server::Listen(options_, clock_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    std::vector<Handler*> handlers;
    for (std::size_t i = 0; i < server_->loops(); ++i) {
      handlers_.push_back(std::make_unique<PathHandler>());
      handlers.push_back(handlers_.back().get());
    }
    server_->Start(handlers);
    return server_->address();
  }
  void AwaitStreams(int count) {
    for (int i = 0; i < kWaitMs && handlers_[0]->streams != count; ++i) ::poll(nullptr, 0, 1);
    EXPECT_EQ(handlers_[0]->streams, count);
  }

  Options options_;
  ManualClock clock_;
  std::vector<std::unique_ptr<PathHandler>> handlers_;
  std::unique_ptr<Server> server_;
};

constexpr char kStream[] = "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n";

std::string Echo(const std::string& body, const std::string& fields = "") {
  return "POST /echo HTTP/1.1\r\nHost: h\r\n" + fields +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST_F(ConnectionTest, AnswersManyRequestsOnOneConnection) {
  Client client(Start());
  for (const std::string body : {"one", "two", ""}) {
    client.Send(Echo(body));
    const std::string head = client.Read("\r\n\r\n");
    EXPECT_THAT(head, StartsWith("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
    EXPECT_THAT(head, HasSubstr("Content-Length: " + std::to_string(body.size()) + "\r\n"));
    if (body.empty()) continue;
    EXPECT_EQ(client.Read(body), body);
  }
}

TEST_F(ConnectionTest, AnswersPipelinedRequestsInOrder) {
  Client client(Start());
  client.Send(Echo("first") + Echo("second") + Echo("last", "Connection: close\r\n"));
  const std::string all = client.Read();
  EXPECT_LT(all.find("first"), all.find("second"));
  EXPECT_THAT(all, EndsWith("Connection: close\r\n\r\nlast"));
}

TEST_F(ConnectionTest, StreamsInChunksAndGoesOn) {
  Client client(Start());
  client.Send(kStream);
  const std::string head = client.Read("\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ(client.Read("first\r\n"), "5\r\nfirst\r\n");
  server_->loop(0).Post([this] { handlers_[0]->Push("0123456789abcdef"); });
  EXPECT_EQ(client.Read("def\r\n"), "10\r\n0123456789abcdef\r\n");
  server_->loop(0).Post([this] { handlers_[0]->End(); });
  EXPECT_EQ(client.Read("\r\n\r\n"), "0\r\n\r\n");
  AwaitStreams(0);
  client.Send(Echo("again"));
  EXPECT_THAT(client.Read("again"), HasSubstr("200 OK"));
}

TEST_F(ConnectionTest, StreamsToTheEndOfTheConnectionWithHttp10) {
  Client client(Start());
  client.Send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  client.Read("first");
  server_->loop(0).Post([this] { handlers_[0]->End(); });
  EXPECT_EQ(client.Read(), "");
}

TEST_F(ConnectionTest, AClientThatGoesEndsItsStream) {
  Client client(Start());
  client.Send(kStream);
  client.Read("first");
  AwaitStreams(1);
  client.Close();
  AwaitStreams(0);
}

TEST_F(ConnectionTest, AClientThatDoesNotReadIsLetGoOfAndHoldsUpNobody) {
  Client slow(Start(), 4096);
  slow.Send("GET /flood HTTP/1.1\r\nHost: h\r\n\r\n");
  AwaitStreams(1);
  Client other(server_->address());
  other.Send(Echo("quick"));
  EXPECT_THAT(other.Read("quick"), HasSubstr("200 OK"));
  clock_.Advance(options_.write_wait_max + absl::Seconds(1));
  AwaitStreams(0);
}

TEST_F(ConnectionTest, SaysWhatIsWrongAndCloses) {
  Start();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"garbage\r\n\r\n", "HTTP/1.1 400 "},
      {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 "},
      {"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12", "HTTP/1.1 404 "},
      {"GET / HTTP/1.1\r\nHost: h\r\nA: " + std::string(20'000, 'a'), "HTTP/1.1 431 "},
  };
  for (const auto& [bytes, start] : cases) {
    Client client(server_->address());
    client.Send(bytes);
    const std::string answer = client.Read();
    EXPECT_THAT(answer, StartsWith(start));
    EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  }
}

// The kernel throws an answer away when its connection is closed with bytes unread.
TEST_F(ConnectionTest, TheAnswerToABodyThatIsTooLargeArrives) {
  Client client(Start());
  client.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n");
  for (int i = 0; i < 100; ++i) client.Send(std::string(100'000, 'x'));
  EXPECT_THAT(client.Read("\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
}

TEST_F(ConnectionTest, TellsAClientToGoOnWithItsBody) {
  Client client(Start());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.Read("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("abc");
  EXPECT_THAT(client.Read("abc"), HasSubstr("200 OK"));
  client.Send(
      "POST /refused HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_THAT(client.Read("\r\n\r\n"), StartsWith("HTTP/1.1 404 ")) << "instead of going on";
}

TEST_F(ConnectionTest, AnswersHeadWithoutABody) {
  Client client(Start());
  client.Send("HEAD /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" + Echo("next"));
  EXPECT_THAT(client.Read("\r\n\r\n"), HasSubstr("Content-Length: 3\r\n"));
  EXPECT_THAT(client.Read("next"), StartsWith("HTTP/1.1 200"));
}

TEST_F(ConnectionTest, LetsGoOfClientsThatAreSlowToAsk) {
  Client silent(Start());
  Client half(server_->address());
  half.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na");
  Client idle(server_->address());
  idle.Send(Echo("x"));
  idle.Read("\r\n\r\nx");
  Client streams(server_->address());
  streams.Send(kStream);
  streams.Read("first");
  clock_.Advance(options_.header_wait_max + absl::Seconds(1));
  EXPECT_EQ(silent.Read(), "");
  clock_.Advance(options_.request_wait_max);
  EXPECT_THAT(half.Read(), StartsWith("HTTP/1.1 408 "));
  clock_.Advance(options_.idle_wait_max);
  EXPECT_EQ(idle.Read(), "");
  EXPECT_EQ(handlers_[0]->streams, 1) << "an answer may take its time";
}

TEST_F(ConnectionTest, CountsConnectionsOfAPeer) {
  options_.connections_per_peer_max = 2;
  Client first(Start());
  first.Send(Echo("a"));
  first.Read("\r\n\r\na");
  {
    Client second(server_->address());
    second.Send(Echo("b"));
    second.Read("\r\n\r\nb");
    Client third(server_->address());
    EXPECT_THAT(third.Read(), StartsWith("HTTP/1.1 503 "));
  }
  // Once the second has gone there is room again.
  std::string answer;
  for (int i = 0; i < kWaitMs && !answer.starts_with("HTTP/1.1 200"); ++i) {
    Client next(server_->address());
    next.Send(Echo("c", "Connection: close\r\n"));
    answer = next.Read();
  }
  EXPECT_THAT(answer, EndsWith("c"));
}

TEST_F(ConnectionTest, BoundsWhatIsBeingReadOfAll) {
  options_.input_bytes_max = 1500;
  Client first(Start());
  first.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n" +
             std::string(900, 'a'));
  Client between(server_->address());
  between.Send(Echo("x"));
  between.Read("\r\n\r\nx");  // the first's bytes have been read by now
  Client second(server_->address());
  second.Send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n" +
              std::string(900, 'a'));
  // Whichever came second.
  const std::string answer = second.Read("\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  second.Close();
  first.Send(std::string(99, 'a'));
  EXPECT_THAT(first.Read("\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ConnectionTest, SpreadsConnectionsOverThreadsAndStopsWithThemOpen) {
  options_.threads = 2;
  Start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<Client>(server_->address()));
    clients.back()->Send(kStream);
    clients.back()->Read("first");
  }
  EXPECT_EQ(handlers_[0]->streams, 4);
  EXPECT_EQ(handlers_[1]->streams, 4);
  // The clock stands still, so that it must be turned for the limit of stopping to pass.
  std::thread turn([this] {
    for (int i = 0; i < 100; ++i) {
      clock_.Advance(options_.stop_wait_max);
      ::poll(nullptr, 0, 1);
    }
  });
  server_->Stop();
  turn.join();
  EXPECT_EQ(handlers_[0]->streams, 0);
}

TEST(Server, SaysWhereItCanNotListen) {
  ManualClock clock;
  Options options;
  options.listen = "nowhere";
  EXPECT_THAT(std::string(Server::Listen(options, clock).status().message()),
              HasSubstr("'nowhere' is not host:port"));
  options.listen = "127.0.0.1:0";
  const auto server = Server::Listen(options, clock);
  ASSERT_TRUE(server.ok());
  options.listen = (*server)->address();
  EXPECT_EQ(Server::Listen(options, clock).status().code(), absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace baleen::router::http
