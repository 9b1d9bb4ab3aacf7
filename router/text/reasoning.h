// Splits a model's reply into reasoning and answer, as it streams.
//
//   <think> \n reasoning \n </think> \n\n answer
//
// The tags, and the line feeds next to them, belong to neither part: the reasoning neither begins
// nor ends with a line feed, an answer that follows reasoning does not begin with one. Clients of
// R1 get the two parts that they would show. A reply that does not reason is passed on as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "router/text/reply/reply_delta.h"

namespace baleen::router {

inline constexpr std::string_view kReasoningOpenTag = "<think>";
inline constexpr std::string_view kReasoningCloseTag = "</think>";

// Not thread-safe; one for each reply.
class ReasoningSplitter {
 public:
  struct Options {
    // The prompt ends with <think>: the reply begins inside the reasoning.
    bool starts_inside = false;
    // The tags are spelled in the text. Otherwise they are tokens, and come through Open and Close;
    // the same characters in the text are then only characters.
    bool finds_tags_in_text = false;
  };

  explicit ReasoningSplitter(const Options& options)
      : finds_tags_in_text_(options.finds_tags_in_text),
        state_(options.starts_inside ? State::kReasoning : State::kStart) {}

  // More text, cut anywhere. Appends what is certain by now; keeps back line feeds at the end of
  // reasoning, white space before a first <think>, and what may be part of a tag.
  void Text(std::string_view text, ReplyDelta* delta);

  // The tag as a token. False if it is no tag where it stands and is to be taken as text:
  // <think> once there was text, </think> outside of reasoning.
  bool Open();
  bool Close();

  // The reply ends: appends what was kept back, except line feeds at the end of reasoning.
  void Finish(ReplyDelta* delta);

  // Something that is not text begins: the answer has begun with it, unless it is reasoned.
  void BeginContent(ReplyDelta* delta);

  bool in_reasoning() const { return state_ == State::kReasoning; }

 private:
  enum class State : std::uint8_t { kStart, kReasoning, kContent };

  // Each takes a beginning of pending_ away; false if it needs more text to go on.
  bool StepStart(ReplyDelta* delta);
  bool StepReasoning(ReplyDelta* delta);

  void AppendReasoning(std::string_view text, ReplyDelta* delta);
  void AppendContent(std::string_view text, ReplyDelta* delta);

  const bool finds_tags_in_text_;
  State state_;
  bool in_margin_ = true;       // nothing but line feeds since the tag
  std::size_t line_feeds_ = 0;  // kept back at the end of reasoning
  std::string white_space_;     // kept back in kStart
  std::string pending_;         // text not yet looked at, or part of a tag
};

}  // namespace baleen::router
