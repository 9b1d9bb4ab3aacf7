// Fuzz target: any text as messages of the system and the user. Whatever they say, the prompt has
// the control tokens of the template and no others, and reads as they wrote it.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "observability/base/check.h"
#include "router/text/chat_template.h"
#include "router/text/utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::router::ChatMessage;
using baleen::router::ChatRole;
using baleen::router::ChatTemplate;
using baleen::router::ControlText;
using baleen::router::Tokenizer;

constexpr char kModelDir[] = "tests/golden/text/byte_level";

struct Model {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;
};

const Model& GetModel() {
  static const Model model = [] {
    auto tokenizer = Tokenizer::Load(kModelDir);
    BALEEN_CHECK(tokenizer.ok(), "run from the root of the repository");
    auto chat_template = ChatTemplate::Load(kModelDir, *tokenizer);
    BALEEN_CHECK(chat_template.ok(), "the template of the goldens is well-formed");
    return Model{*tokenizer, *chat_template};
  }();
  return model;
}

std::size_t CountControl(const std::vector<std::int32_t>& ids) {
  std::size_t count = 0;
  for (const std::int32_t id : ids) count += GetModel().tokenizer->table().At(id).control ? 1 : 0;
  return count;
}

}  // namespace

// The first byte says where the text is cut into two messages.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::size_t cut = text.size() * data[0] / 256;
  const std::vector<ChatMessage> messages = {
      {.role = ChatRole::kSystem, .content = text.substr(0, cut)},
      {.role = ChatRole::kUser, .content = text.substr(cut)}};
  const auto prompt = GetModel().chat_template->Render(messages);
  if (!prompt.ok()) {
    BALEEN_CHECK(absl::IsInvalidArgument(prompt.status()), "the messages are at fault");
    return 0;
  }
  // <｜begin▁of▁sentence｜>, <｜User｜>, <｜Assistant｜>, <think>
  BALEEN_CHECK(CountControl(prompt->token_ids) == 4, "messages add no control token");
  BALEEN_CHECK(prompt->opens_reasoning, "the prompt ends as the template does");
  BALEEN_CHECK(baleen::router::IsValidUtf8(prompt->text), "a prompt is text");
  if (const auto ids = GetModel().tokenizer->Encode(text, ControlText::kAsText); ids.ok()) {
    BALEEN_CHECK(CountControl(*ids) == 0, "text is text");
    BALEEN_CHECK(GetModel().tokenizer->Decode(*ids) == text, "text comes back as it was");
  }
  return 0;
}
