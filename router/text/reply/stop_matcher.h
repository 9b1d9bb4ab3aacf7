// Stop texts: the reply ends before the first of them, wherever tokens and pieces end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baleen::router {

// The texts of one request, as an automaton (Aho and Corasick) that finds all of them in one pass.
// Immutable: the choices of a request share one. At most 80 kB.
class StopTexts {
 public:
  // INVALID_ARGUMENT, naming the text and the limit, if there are more than contract::kStopTextsMax
  // or one has no bytes, more than contract::kStopTextBytesMax, or is not UTF-8. A text may come
  // twice. Null if there are none.
  static absl::StatusOr<std::shared_ptr<const StopTexts>> Make(std::span<const std::string> texts);

 private:
  friend class StopMatcher;

  // What has been read ends with the beginning of a text, the longest that there is: `depth` bytes.
  struct Node {
    std::uint16_t depth = 0;
    std::uint16_t match = 0;    // bytes of the longest text that ends here; 0: none does
    std::uint16_t shorter = 0;  // the next shorter beginning that what has been read ends with
    std::uint16_t child = 0;    // first of the nodes one byte deeper, linked by `sibling`; 0: none
    std::uint16_t sibling = 0;
    char byte = 0;  // the last of `depth`
  };

  StopTexts() : nodes_(1) {}
  void Add(std::string_view text);
  void Link();
  std::uint16_t Child(std::uint16_t node, char byte) const;
  std::uint16_t Next(std::uint16_t node, char byte) const;

  std::vector<Node> nodes_;  // the first: nothing has been read
};

// Looks for stop texts in the content of one reply. Takes time in proportion to the bytes; keeps
// back at most kStopTextBytesMax - 1 of them: what may be the beginning of a stop text. Not
// thread-safe.
//
// The text whose last byte comes first wins; of several that end with the same byte, the longest
// one. So nothing of any stop text that stands before the end of the reply is passed on.
class StopMatcher {
 public:
  // Null finds nothing.
  explicit StopMatcher(std::shared_ptr<const StopTexts> texts) : texts_(std::move(texts)) {}

  // More text, cut anywhere between characters. Appends to `out` what is certain to be passed on.
  // True if a stop text ends in `text`; whatever comes after it, now or later, is dropped. With
  // `may_stop` false a stop text that ends in `text` is text like others.
  bool Push(std::string_view text, bool may_stop, std::string* out);

  // The reply ends: appends what was kept back, unless it has stopped.
  void Finish(std::string* out);

  bool stopped() const { return stopped_; }

 private:
  std::shared_ptr<const StopTexts> texts_;
  std::uint16_t node_ = 0;
  bool stopped_ = false;
  std::string kept_;  // nodes_[node_].depth bytes
};

}  // namespace baleen::router
