// Fuzz target: the bytes of a connection. The first byte says in pieces of which size they come;
// the requests found are the same as when they come at once.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "observability/base/check.h"
#include "router/server/http/message/request_reader.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::router::http::ReaderLimits;
using baleen::router::http::Request;
using baleen::router::http::RequestReader;
using State = RequestReader::State;

constexpr ReaderLimits kLimits = {.header_bytes_max = 2048, .body_bytes_max = 1024};
constexpr int kRequestsMax = 64;

// All requests of `bytes` as text, up to the first error.
std::string Read(std::string_view bytes, std::size_t piece) {
  std::string found;
  std::string input;
  for (int requests = 0; requests < kRequestsMax; ++requests) {
    RequestReader reader(kLimits);
    while (reader.state() == State::kHeader || reader.state() == State::kBody) {
      const State before = reader.state();
      const std::size_t size = input.size();
      reader.Read(input);
      BALEEN_CHECK(reader.body_bytes() <= kLimits.body_bytes_max, "a body has a limit");
      if (reader.state() != before || input.size() != size) continue;
      BALEEN_CHECK(input.size() <= kLimits.header_bytes_max + piece + 64, "so has what waits");
      if (bytes.empty()) return found;
      input += bytes.substr(0, piece);
      bytes.remove_prefix(std::min(piece, bytes.size()));
    }
    if (reader.state() == State::kFailed) {
      BALEEN_CHECK(reader.error_code() >= 400 && reader.error_code() < 600, "the client hears why");
      return found;
    }
    const Request request = reader.Take();
    found += request.head.method + " " + request.head.path + "\n" + request.body + "\n";
  }
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  // Beast measures a header when it is complete or the limit is reached, so only its errors may
  // come earlier or later with other pieces; requests before them are the same.
  const std::string in_pieces = Read(bytes, std::size_t{data[0]} + 1);
  const std::string at_once = Read(bytes, bytes.size() + 1);
  BALEEN_CHECK(in_pieces == at_once, "pieces make no difference");
  return 0;
}
