// Fuzz target: bodies of the OpenAI API. Our JSON reader agrees with nlohmann's on what JSON is;
// what it writes back it reads as the same; and a body becomes a message or an error that names a
// field.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "observability/base/check.h"
#include "proto/contract/status.h"
#include "router/server/openai/json/document.h"
#include "router/server/openai/request/request.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::contract::Reason;
using baleen::contract::ReasonOf;
using baleen::router::json::Document;

void CheckError(const absl::Status& status) {
  BALEEN_CHECK(ReasonOf(status) == Reason::kInvalidRequest, "the body is at fault");
  BALEEN_CHECK(status.message().size() < 2048, "errors do not grow with the body");
}

void CheckReader(std::string_view text) {
  const auto document = Document::Parse(text);
  if (document.ok()) {
    BALEEN_CHECK(nlohmann::json::accept(text), "only JSON is JSON");
    const std::string written = document->root().ToText();
    const auto again = Document::Parse(written);
    BALEEN_CHECK(again.ok() && again->root().ToText() == written, "what is written is read");
    return;
  }
  CheckError(document.status());
  // nlohmann skips a byte order mark, and takes a zero byte for the end.
  const bool differs =
      text.starts_with("\xEF\xBB\xBF") || text.find('\0') != std::string_view::npos;
  const bool not_json =
      std::string(document.status().message()).find("it is not JSON") != std::string::npos;
  BALEEN_CHECK(!not_json || differs || !nlohmann::json::accept(text), "all JSON is JSON");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckReader(text);
  namespace openai = baleen::router::openai;
  if (const auto body = openai::ReadChatBody(text); !body.ok()) CheckError(body.status());
  if (const auto body = openai::ReadCompletionBody(text); !body.ok()) CheckError(body.status());
  if (const auto body = openai::ReadTokenizeBody(text); !body.ok()) CheckError(body.status());
  return 0;
}
