#include "router/text/reply/stop_matcher.h"

#include "fmt/format.h"
#include "proto/contract/limits.h"
#include "router/text/utf8.h"

namespace baleen::router {
namespace {

static_assert(contract::kStopTextsMax * contract::kStopTextBytesMax < 65'535,
              "a node has a number of 16 bits");

absl::Status Check(std::span<const std::string> texts) {
  if (texts.size() > contract::kStopTextsMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} stop texts, limit {}", texts.size(), contract::kStopTextsMax));
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string& text = texts[i];
    if (text.empty() || text.size() > contract::kStopTextBytesMax) {
      return absl::InvalidArgumentError(fmt::format("stop text {} is {} bytes, must be 1 to {}", i,
                                                    text.size(), contract::kStopTextBytesMax));
    }
    // A text that begins inside a character would cut one.
    if (!IsValidUtf8(text)) {
      return absl::InvalidArgumentError(fmt::format("stop text {} is not valid UTF-8", i));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const StopTexts>> StopTexts::Make(
    std::span<const std::string> texts) {
  if (const absl::Status status = Check(texts); !status.ok()) return status;
  if (texts.empty()) return std::shared_ptr<const StopTexts>();
  std::shared_ptr<StopTexts> result(new StopTexts());
  for (const std::string& text : texts) result->Add(text);
  result->Link();
  return std::shared_ptr<const StopTexts>(std::move(result));
}

void StopTexts::Add(std::string_view text) {
  std::uint16_t at = 0;
  for (const char byte : text) {
    std::uint16_t next = Child(at, byte);
    if (next == 0) {
      next = static_cast<std::uint16_t>(nodes_.size());
      nodes_.push_back({.depth = static_cast<std::uint16_t>(nodes_[at].depth + 1),
                        .sibling = nodes_[at].child,
                        .byte = byte});
      nodes_[at].child = next;
    }
    at = next;
  }
  nodes_[at].match = nodes_[at].depth;
}

// Nodes in the order of their depth, so that shorter beginnings are linked first.
void StopTexts::Link() {
  std::vector<std::uint16_t> order = {0};
  order.reserve(nodes_.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::uint16_t parent = order[i];
    for (std::uint16_t at = nodes_[parent].child; at != 0; at = nodes_[at].sibling) {
      order.push_back(at);
      Node& node = nodes_[at];
      if (parent != 0) node.shorter = Next(nodes_[parent].shorter, node.byte);
      if (node.match == 0) node.match = nodes_[node.shorter].match;
    }
  }
}

std::uint16_t StopTexts::Child(std::uint16_t node, char byte) const {
  std::uint16_t at = nodes_[node].child;
  while (at != 0 && nodes_[at].byte != byte) at = nodes_[at].sibling;
  return at;
}

std::uint16_t StopTexts::Next(std::uint16_t node, char byte) const {
  while (true) {
    if (const std::uint16_t child = Child(node, byte); child != 0) return child;
    if (node == 0) return 0;
    node = nodes_[node].shorter;
  }
}

bool StopMatcher::Push(std::string_view text, bool may_stop, std::string* out) {
  if (stopped_) return true;
  if (texts_ == nullptr) {
    out->append(text);
    return false;
  }
  const std::vector<StopTexts::Node>& nodes = texts_->nodes_;
  for (std::size_t i = 0; i < text.size(); ++i) {
    node_ = texts_->Next(node_, text[i]);
    if (const std::size_t match = nodes[node_].match; match > 0 && may_stop) {
      // What was kept back and what is new, up to the match.
      const std::size_t before = kept_.size() + i + 1 - match;
      out->append(kept_, 0, before);
      if (before > kept_.size()) out->append(text.substr(0, before - kept_.size()));
      kept_.clear();
      stopped_ = true;
      return true;
    }
    // Nothing begins with all of a text that has no longer one.
    if (nodes[node_].child == 0) node_ = nodes[node_].shorter;
  }
  const std::size_t depth = nodes[node_].depth;
  const std::size_t certain = kept_.size() + text.size() - depth;
  out->append(kept_, 0, certain);
  if (certain >= kept_.size()) {
    out->append(text.substr(0, certain - kept_.size()));
    kept_.assign(text.substr(text.size() - depth));
  } else {
    kept_.erase(0, certain);
    kept_.append(text);
  }
  return false;
}

void StopMatcher::Finish(std::string* out) {
  out->append(kept_);
  kept_.clear();
  node_ = 0;
}

}  // namespace baleen::router
