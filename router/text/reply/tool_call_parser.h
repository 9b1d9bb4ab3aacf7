// Calls of tools in a model's reply, as it streams. DeepSeek's formats; tags are tokens:
//
//   R1, V3   <calls begin> <call begin> function <sep> NAME \n ```json \n {..} \n ``` <call end>
//            \n <call begin> ... <call end> <calls end>
//   V3.1     <calls begin> <call begin> NAME <sep> {..} <call end> <call begin> ... <calls end>
//
// What is not a call stays content, tags spelled out: a call is one once its name and the opening
// brace of its arguments are there, or its end without any. What follows the closing brace, but for
// R1's fence, is content as well; so is text between and after calls. White space there belongs to
// the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "router/text/reply/reply_delta.h"

namespace baleen::router {

// Calls in a reply; as many as an assistant's turn may have.
inline constexpr std::uint32_t kToolCallsMax = 128;

inline constexpr std::string_view kToolCallsBeginTag = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kToolCallsEndTag = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kToolCallBeginTag = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kToolCallEndTag = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSeparatorTag = "<｜tool▁sep｜>";

// Ids of the tags; -1: the vocabulary has none.
struct ToolTokens {
  std::int32_t calls_begin = -1;
  std::int32_t calls_end = -1;
  std::int32_t call_begin = -1;
  std::int32_t call_end = -1;
  std::int32_t separator = -1;

  // The model can call tools.
  bool complete() const {
    return calls_begin >= 0 && calls_end >= 0 && call_begin >= 0 && call_end >= 0 && separator >= 0;
  }
  bool contains(std::int32_t id) const {
    return id >= 0 && (id == calls_begin || id == calls_end || id == call_begin || id == call_end ||
                       id == separator);
  }
};

// Not thread-safe; one for each reply. Takes time in proportion to the bytes; keeps back at most
// 1 kB: what may still turn out to be no call.
class ToolCallParser {
 public:
  enum class Tag : std::uint8_t { kCallsBegin, kCallsEnd, kCallBegin, kCallEnd, kSeparator };

  // calls_max: 1 to kToolCallsMax.
  explicit ToolCallParser(std::uint32_t calls_max = kToolCallsMax) : calls_max_(calls_max) {}

  // More text between tags, cut anywhere between characters; a tag. Both append to content and
  // tool_calls of `delta`. After full() they do nothing.
  void Text(std::string_view text, ReplyDelta* delta);
  void Take(Tag tag, ReplyDelta* delta);

  // The reply ends: what was kept back and is no call becomes content. Arguments that were cut off
  // stay as they are.
  void Finish(ReplyDelta* delta);

  // Those begun.
  std::uint32_t calls() const { return calls_; }
  // The last call that there may be has ended, and with it the reply.
  bool full() const {
    return calls_ == calls_max_ && state_ != State::kArguments && state_ != State::kClosing;
  }

 private:
  enum class State : std::uint8_t {
    kContent,    // text is content
    kBetween,    // after <calls begin>, the end of a call, or <calls end>
    kHead,       // after <call begin>: "function", or the name
    kOpening,    // after <sep>: the name if the head was "function", a fence, white space
    kArguments,  // inside the object
    kClosing,    // behind it: white space, the fence's end
  };

  // Where the object begins in `text`, taking what is before; npos: not yet, or this is no call.
  std::size_t FindArguments(std::string_view text, ReplyDelta* delta);
  // Size of the beginning of `text` that belongs to the object.
  std::size_t ScanArguments(std::string_view text);
  // Reads the name from what is between the tags and the arguments.
  bool ReadName(bool has_arguments);

  void BeginCall(ReplyDelta* delta);
  void AppendArguments(std::string_view text, ReplyDelta* delta) const;
  void TakeBegin(Tag tag, ReplyDelta* delta);
  void TakeEnd(Tag tag, ReplyDelta* delta);
  // What was kept back is no call, nor is what follows it up to the next tag.
  void GiveUp(ReplyDelta* delta);
  void Keep(std::string_view text, ReplyDelta* delta);

  const std::uint32_t calls_max_;
  State state_ = State::kContent;
  std::uint32_t calls_ = 0;
  std::string kept_;         // as the model wrote it, tags spelled out
  std::string head_;         // its part between <call begin> and <sep>; once read, the name
  std::string opening_;      // its part between <sep> and the object
  std::uint32_t depth_ = 0;  // of brackets in the object
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace baleen::router
