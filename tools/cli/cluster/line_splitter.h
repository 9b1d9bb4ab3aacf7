// Cuts a byte stream into lines, so that the logs of several processes never mix within a line.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace baleen::cli {

class LineSplitter {
 public:
  // A longer line comes in pieces of this many bytes: a child can not make us hold more.
  static constexpr std::size_t kLineBytesMax = 16 * 1024;

  using OnLine = std::function<void(std::string_view line)>;

  // Calls on_line for each line that `bytes` completes, without its newline and a carriage return
  // before it.
  void Append(std::string_view bytes, const OnLine& on_line);
  // The stream is over: what is left is a line too.
  void Finish(const OnLine& on_line);

 private:
  std::string partial_;
};

}  // namespace baleen::cli
