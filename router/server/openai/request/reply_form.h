// How a client wants its answer written; what it asks for is in the message.
#pragma once

namespace baleen::router::openai {

struct ReplyForm {
  bool stream = false;
  bool include_usage = false;          // of a stream: usage in an event of its own before [DONE]
  bool return_token_ids = false;       // beside the text
  bool prompt_logprobs_apart = false;  // completions: asked for by their own field, not by echo
};

}  // namespace baleen::router::openai
