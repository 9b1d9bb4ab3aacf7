// Requests and responses as those who answer see them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baleen::router::http {

struct RequestHead {
  std::string method;
  std::string path;  // without the query
  int version = 11;  // 10 or 11
  bool keep_alive = false;
  bool chunked = false;
  std::optional<std::uint64_t> content_length;
  bool expects_continue = false;

  // Header fields that somebody asks for; empty = not there.
  std::string content_type;
  std::string authorization;
  std::string traceparent;
  std::string debug;  // x-baleen-debug
};

struct Request {
  RequestHead head;
  std::string body;
};

struct Field {
  std::string_view name;
  std::string value;  // control characters are written as spaces
};

struct Response {
  int code = 200;
  std::string_view content_type = "application/json";
  std::vector<Field> fields;
  std::string body;
};

// "Not Found".
std::string_view PhraseOf(int code);

// Status line and fields of `response`, without its body. `length` nullopt: chunked, or until the
// connection closes with HTTP/1.0.
struct HeadForm {
  int version = 11;
  bool keep_alive = true;
  std::optional<std::size_t> length;
  std::string_view date;
};
std::string WriteHead(const Response& response, const HeadForm& form);

}  // namespace baleen::router::http
