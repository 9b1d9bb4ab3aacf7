#include "router/server/http/message/message.h"

#include <fmt/format.h>

#include <iterator>

namespace baleen::router::http {

std::string_view PhraseOf(int code) {
  constexpr std::pair<int, std::string_view> kPhrases[] = {
      {100, "Continue"},
      {200, "OK"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {408, "Request Timeout"},
      {413, "Content Too Large"},
      {414, "URI Too Long"},
      {415, "Unsupported Media Type"},
      {417, "Expectation Failed"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {499, "Client Closed Request"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
  };
  for (const auto& [known, phrase] : kPhrases) {
    if (known == code) return phrase;
  }
  return "Unknown";
}

std::string WriteHead(const Response& response, const HeadForm& form) {
  std::string head;
  const auto out = std::back_inserter(head);
  fmt::format_to(out, "HTTP/1.1 {} {}\r\n", response.code, PhraseOf(response.code));
  if (!form.date.empty()) fmt::format_to(out, "Date: {}\r\n", form.date);
  fmt::format_to(out, "Content-Type: {}\r\n", response.content_type);
  for (const Field& field : response.fields) {
    fmt::format_to(out, "{}: ", field.name);
    // One line, whatever is said.
    for (const char c : field.value) head += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    head += "\r\n";
  }
  if (form.length) {
    fmt::format_to(out, "Content-Length: {}\r\n", *form.length);
  } else if (form.version >= 11) {
    head += "Transfer-Encoding: chunked\r\n";
  }
  if (!form.keep_alive) {
    head += "Connection: close\r\n";
  } else if (form.version < 11) {
    head += "Connection: keep-alive\r\n";
  }
  head += "\r\n";
  return head;
}

}  // namespace baleen::router::http
