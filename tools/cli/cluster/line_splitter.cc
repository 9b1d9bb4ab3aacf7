#include "tools/cli/cluster/line_splitter.h"

#include <algorithm>

namespace baleen::cli {

void LineSplitter::Append(std::string_view bytes, const OnLine& on_line) {
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    const std::size_t room = kLineBytesMax - partial_.size();
    const std::size_t take = std::min({newline, bytes.size(), room});
    partial_.append(bytes.substr(0, take));
    bytes.remove_prefix(take);
    const bool ended = !bytes.empty() && bytes.front() == '\n';
    if (ended) bytes.remove_prefix(1);
    if (ended || partial_.size() == kLineBytesMax) {
      if (ended && !partial_.empty() && partial_.back() == '\r') partial_.pop_back();
      on_line(partial_);
      partial_.clear();
    }
  }
}

void LineSplitter::Finish(const OnLine& on_line) {
  if (!partial_.empty()) on_line(partial_);
  partial_.clear();
}

}  // namespace baleen::cli
