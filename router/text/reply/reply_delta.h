// What a step adds to a reply, as a client sees it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace baleen::router {

// A part of a call of a tool. Parts of one index add up, in order.
struct ToolCallDelta {
  std::uint32_t index = 0;  // counts the calls of the reply from 0
  std::string id;           // empty: given by who passes it on to the client
  std::string name;         // on the first part of a call, whole; else empty
  std::string arguments;    // JSON text
};

struct ReplyDelta {
  std::string reasoning;
  std::string content;
  std::vector<ToolCallDelta> tool_calls;  // in order of index, one part of each at most
};

}  // namespace baleen::router
