// Between the C ABI of the text crate and C++: spans, statuses, results that free themselves.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "text/crate/baleen_text.h"

namespace baleen::router {

inline baleen_text_span ToSpan(std::string_view text) { return {text.data(), text.size()}; }

// The status of a call that returned `code` and, unless that is BALEEN_TEXT_OK, filled `error`. Its
// message begins with `where` if that is not empty.
inline absl::Status ToStatus(std::int32_t code, const baleen_text_error& error,
                             std::string_view where = {}) {
  if (code == BALEEN_TEXT_OK) return absl::OkStatus();
  std::string message(where);
  if (!where.empty()) message.append(": ");
  message.append(error.message, error.message_size);
  if (code == BALEEN_TEXT_INVALID_INPUT) return absl::InvalidArgumentError(message);
  if (code == BALEEN_TEXT_INVALID_MODEL) return absl::FailedPreconditionError(message);
  if (code == BALEEN_TEXT_NOT_FOUND) return absl::NotFoundError(message);
  return absl::InternalError(message);
}

// A result of the crate, given back to it at the end.
class AbiPrompt {
 public:
  AbiPrompt() = default;
  AbiPrompt(const AbiPrompt&) = delete;
  AbiPrompt& operator=(const AbiPrompt&) = delete;
  ~AbiPrompt() { baleen_text_prompt_free(&raw_); }

  baleen_text_prompt* out() { return &raw_; }
  std::string text() const { return std::string(raw_.text, raw_.text_size); }
  std::span<const baleen_text_segment> segments() const {
    return {raw_.segments, raw_.segments_size};
  }
  std::vector<std::int32_t> token_ids() const {
    return std::vector<std::int32_t>(raw_.token_ids, raw_.token_ids + raw_.token_ids_size);
  }

 private:
  baleen_text_prompt raw_ = {};
};

}  // namespace baleen::router
