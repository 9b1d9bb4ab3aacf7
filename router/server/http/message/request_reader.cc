#include "router/server/http/message/request_reader.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <utility>

#include "observability/base/check.h"

namespace baleen::router::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;

// Beast's own string_body takes as much memory as Content-Length says before a byte has come.
struct GrowingBody {
  using value_type = std::string;

  class reader {
   public:
    template <bool kIsRequest, typename Fields>
    reader(beast::http::header<kIsRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>&, beast::error_code& error) { error = {}; }
    template <typename Buffers>
    std::size_t put(const Buffers& buffers, beast::error_code& error) {
      error = {};
      std::size_t taken = 0;
      for (auto it = asio::buffer_sequence_begin(buffers); it != asio::buffer_sequence_end(buffers);
           ++it) {
        const asio::const_buffer buffer(*it);
        body_.append(static_cast<const char*>(buffer.data()), buffer.size());
        taken += buffer.size();
      }
      return taken;
    }
    void finish(beast::error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

std::string ToString(beast::string_view text) { return std::string(text.data(), text.size()); }

std::pair<int, std::string> Explain(const beast::error_code& error, const ReaderLimits& limits) {
  if (error == beast::http::error::header_limit) {
    return {431, fmt::format("the header is larger than {} bytes", limits.header_bytes_max)};
  }
  if (error == beast::http::error::body_limit) {
    return {413, fmt::format("the body is larger than {} bytes", limits.body_bytes_max)};
  }
  if (error == beast::http::error::bad_version) return {505, "only HTTP/1.0 and HTTP/1.1"};
  return {400, fmt::format("not an HTTP request: {}", error.message())};
}

}  // namespace

class RequestReader::Parser : public beast::http::request_parser<GrowingBody> {};

RequestReader::RequestReader(const ReaderLimits& limits)
    : limits_(limits), parser_(std::make_unique<Parser>()) {
  parser_->header_limit(static_cast<std::uint32_t>(limits.header_bytes_max));
  parser_->body_limit(limits.body_bytes_max);
  parser_->eager(true);
}

RequestReader::~RequestReader() = default;

std::size_t RequestReader::body_bytes() const { return parser_->get().body().size(); }

void RequestReader::Read(std::string& input) {
  std::size_t taken = 0;
  while (state_ == State::kHeader || state_ == State::kBody) {
    // Without eagerness the parser stops after the header.
    parser_->eager(state_ == State::kBody);
    beast::error_code error;
    const std::size_t now =
        parser_->put(asio::buffer(input.data() + taken, input.size() - taken), error);
    taken += now;
    if (error && error != beast::http::error::need_more) {
      auto [code, why] = Explain(error, limits_);
      Fail(code, std::move(why));
      break;
    }
    if (state_ == State::kHeader && parser_->is_header_done()) {
      TakeHead();
      if (parser_->is_done() && state_ == State::kBody) state_ = State::kDone;
      break;
    }
    if (parser_->is_done()) state_ = State::kDone;
    if (now == 0 || taken == input.size()) break;
  }
  input.erase(0, taken);
}

void RequestReader::TakeHead() {
  using beast::http::field;
  const auto& message = parser_->get();
  head_.method = ToString(message.method_string());
  head_.path = ToString(message.target());
  head_.path.resize(std::min(head_.path.size(), head_.path.find('?')));
  head_.version = static_cast<int>(message.version());
  head_.keep_alive = message.keep_alive();
  head_.chunked = parser_->chunked();
  if (const auto length = parser_->content_length()) head_.content_length = *length;
  head_.expects_continue = beast::iequals(message[field::expect], "100-continue");
  head_.content_type = ToString(message[field::content_type]);
  head_.authorization = ToString(message[field::authorization]);
  head_.traceparent = ToString(message["traceparent"]);
  head_.debug = ToString(message["x-baleen-debug"]);
  state_ = State::kBody;
  if (head_.version != 10 && head_.version != 11) {
    Fail(505, "only HTTP/1.0 and HTTP/1.1");
  } else if (head_.version == 11 && message.count(field::host) != 1) {
    Fail(400, "HTTP/1.1 needs one Host field");
  } else if (message.count(field::transfer_encoding) > 0 && !head_.chunked) {
    // Beast would take the request for one without a body, and its body for the next request.
    Fail(501, "the only transfer encoding is chunked");
  } else if (message.count(field::authorization) > 1) {
    Fail(400, "more than one Authorization field");
  } else if (!message[field::expect].empty() && !head_.expects_continue) {
    Fail(417, "the only expectation that is met is 100-continue");
  } else if (head_.content_length && *head_.content_length > limits_.body_bytes_max) {
    Fail(413, fmt::format("the body has {} bytes, limit {}", *head_.content_length,
                          limits_.body_bytes_max));
  }
}

Request RequestReader::Take() {
  BALEEN_CHECK(state_ == State::kDone, "the request is complete");
  return {.head = std::move(head_), .body = std::move(parser_->get().body())};
}

void RequestReader::Fail(int code, std::string why) {
  state_ = State::kFailed;
  error_code_ = code;
  error_ = std::move(why);
}

}  // namespace baleen::router::http
