#include "worker/model/format/strict_json.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace baleen::worker {
namespace {

using Json = nlohmann::json;

// Builds the document while it watches depth and keys. Every callback returns false to stop at the
// first error.
class DocumentBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit DocumentBuilder(int depth_max) : depth_max_(depth_max) {}

  Json TakeDocument() { return std::move(root_); }
  const std::string& error() const { return error_; }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return Fail("binary value"); }

  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& value) override {
    if (open_.back()->contains(value)) return Fail("duplicate key " + Quoted(value));
    key_ = std::move(value);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception&) override {
    return Fail(fmt::format("not valid JSON at byte {}, near {}", position, Quoted(last_token)));
  }

 private:
  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    return &((*open_.back())[key_] = std::move(value));
  }

  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }

  bool Open(Json container) {
    if (static_cast<int>(open_.size()) == depth_max_) {
      return Fail(fmt::format("nested deeper than {}, the limit", depth_max_));
    }
    open_.push_back(Place(std::move(container)));
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  bool Fail(std::string why) {
    error_ = std::move(why);
    return false;
  }

  const int depth_max_;
  Json root_;
  std::vector<Json*>
      open_;  // the containers around the current value; each stays in place while it is open
  std::string key_;
  std::string error_;
};

}  // namespace

absl::StatusOr<Json> ParseStrictJson(std::string_view what, std::string_view text,
                                     JsonLimits limits) {
  if (text.size() > limits.bytes_max) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} bytes, the limit is {}", what, text.size(), limits.bytes_max));
  }
  if (const std::size_t zero = text.find('\0'); zero != text.npos) {
    // nlohmann-json takes a zero byte for the end of its input and would not look at the rest.
    return absl::InvalidArgumentError(
        fmt::format("{}: not valid JSON at byte {}: a zero byte", what, zero));
  }
  DocumentBuilder builder(limits.depth_max);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", what, builder.error()));
  }
  return builder.TakeDocument();
}

std::string Shown(std::string_view text) {
  constexpr std::size_t kShownBytesMax = 80;
  std::string shown;
  for (const char c : text.substr(0, kShownBytesMax)) {
    shown += c >= 0x20 && c < 0x7f ? c : '?';
  }
  return text.size() > kShownBytesMax ? shown + "..." : shown;
}

std::string Quoted(std::string_view text) { return '"' + Shown(text) + '"'; }

}  // namespace baleen::worker
