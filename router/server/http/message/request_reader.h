// One HTTP/1 request from bytes that come in pieces. Beast's parser, with our limits, and without
// sockets, so that it can be fuzzed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "router/server/http/message/message.h"

namespace baleen::router::http {

struct ReaderLimits {
  std::size_t header_bytes_max = 0;
  std::size_t body_bytes_max = 0;
};

class RequestReader {
 public:
  enum class State : std::uint8_t {
    kHeader,  // reads it
    kBody,    // the header is here: head() is valid
    kDone,    // Take has the request
    kFailed,  // error_code() and error() say why
  };

  explicit RequestReader(const ReaderLimits& limits);
  ~RequestReader();

  // Takes from the beginning of `input` what belongs to this request and is complete. Returns after
  // the header too, so that it can be looked at before the body is read: call again until nothing
  // is taken and the state stays.
  void Read(std::string& input);

  State state() const { return state_; }
  const RequestHead& head() const { return head_; }
  // Bytes of the body so far.
  std::size_t body_bytes() const;

  // Precondition: kDone.
  Request Take();

  // Precondition: kFailed. An HTTP code; a text that quotes nothing of the request.
  int error_code() const { return error_code_; }
  const std::string& error() const { return error_; }

 private:
  class Parser;

  void Fail(int code, std::string why);
  void TakeHead();

  const ReaderLimits limits_;
  std::unique_ptr<Parser> parser_;
  State state_ = State::kHeader;
  RequestHead head_;
  int error_code_ = 0;
  std::string error_;
};

}  // namespace baleen::router::http
