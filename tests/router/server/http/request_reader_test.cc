// Requests from bytes: cut anywhere, too large, malformed, smuggled.
#include "router/server/http/message/request_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace baleen::router::http {
namespace {

using State = RequestReader::State;

constexpr ReaderLimits kLimits = {.header_bytes_max = 1024, .body_bytes_max = 16};

// Feeds `bytes` in pieces of `piece`; what is left over goes to `rest`.
State Feed(RequestReader& reader, const std::string& bytes, std::size_t piece,
           std::string* rest = nullptr) {
  std::string input;
  std::size_t fed = 0;
  while (reader.state() == State::kHeader || reader.state() == State::kBody) {
    const State before = reader.state();
    const std::size_t size = input.size();
    reader.Read(input);
    if (reader.state() != before || input.size() != size) continue;
    if (fed >= bytes.size()) break;
    input += bytes.substr(fed, piece);
    fed += piece;
  }
  if (rest != nullptr) *rest = input + (fed < bytes.size() ? bytes.substr(fed) : "");
  return reader.state();
}

TEST(RequestReader, TakesARequestHoweverItIsCut) {
  const std::string bytes =
      "POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: h\r\ncontent-TYPE: application/json\r\n"
      "Authorization: Bearer k\r\ntraceparent: 00-t\r\nx-baleen-debug: route\r\n"
      "Content-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n";
  for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
    RequestReader reader(kLimits);
    std::string rest;
    ASSERT_EQ(Feed(reader, bytes, piece, &rest), State::kDone) << piece << reader.error();
    EXPECT_EQ(rest, "GET / HTTP/1.1\r\n\r\n") << piece;
    const Request request = reader.Take();
    EXPECT_EQ(request.body, "body");
    EXPECT_EQ(request.head.method, "POST");
    EXPECT_EQ(request.head.path, "/v1/chat/completions");
    EXPECT_EQ(request.head.content_type, "application/json");
    EXPECT_EQ(request.head.authorization, "Bearer k");
    EXPECT_EQ(request.head.traceparent, "00-t");
    EXPECT_EQ(request.head.debug, "route");
    EXPECT_TRUE(request.head.keep_alive);
  }
}

TEST(RequestReader, TakesChunkedBodies) {
  const std::string bytes =
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n0a;ext=1\r\n0123456789\r\n0\r\n\r\n";
  for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
    RequestReader reader(kLimits);
    ASSERT_EQ(Feed(reader, bytes, piece), State::kDone) << piece << reader.error();
    EXPECT_EQ(reader.Take().body, "abc0123456789");
  }
}

TEST(RequestReader, KnowsWhichConnectionsStay) {
  const std::vector<std::pair<std::string, bool>> cases = {
      {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
      {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false},
      {"GET / HTTP/1.0\r\n\r\n", false},
      {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
  };
  for (const auto& [bytes, keep_alive] : cases) {
    RequestReader reader(kLimits);
    ASSERT_EQ(Feed(reader, bytes, 64), State::kDone) << bytes;
    EXPECT_EQ(reader.Take().head.keep_alive, keep_alive) << bytes;
  }
}

TEST(RequestReader, RefusesWithTheCodeThatFits) {
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n";
  const std::vector<std::pair<std::string, int>> cases = {
      {"hello\r\n\r\n", 400},
      {std::string("\x16\x03\x01\x02\x00\x01", 6) + std::string(600, '\0'), 400},  // TLS
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"GET / HTTP/1.1\r\n\r\n", 400},                        // no Host
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},  // two
      {post + "Content-Length: 17\r\n\r\n", 413},
      {post + "Content-Length: 99999999999999999999999\r\n\r\n", 400},
      {post + "Content-Length: -1\r\n\r\n", 400},
      {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {post + "Transfer-Encoding: gzip\r\n\r\n", 501},
      {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400},
      {post + "Transfer-Encoding: chunked\r\n\r\n11\r\n" + std::string(17, 'a'), 413},
      {post + "Expect: gold\r\n\r\n", 417},
      {post + "Authorization: a\r\nAuthorization: b\r\n\r\n", 400},
      {post + "A: " + std::string(2000, 'a') + "\r\n\r\n", 431},
      {"GET /" + std::string(2000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
      {post + "A b: c\r\n\r\n", 400},
      {post + "A: b\nC: d\r\n\r\n", 400},
  };
  for (const auto& [bytes, code] : cases) {
    for (const std::size_t piece : {std::size_t{1}, bytes.size()}) {
      RequestReader reader(kLimits);
      EXPECT_EQ(Feed(reader, bytes, piece), State::kFailed) << bytes.substr(0, 80);
      EXPECT_EQ(reader.error_code(), code) << bytes.substr(0, 80) << reader.error();
    }
  }
}

}  // namespace
}  // namespace baleen::router::http
