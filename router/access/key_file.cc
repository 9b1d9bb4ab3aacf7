#include "router/access/key_file.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::router {
namespace {

using Json = nlohmann::json;

// Characters of the text, and how many lines of them are read.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, std::size_t* line) : at_(at), line_(line) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    if (*at_++ == '\n') ++*line_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  std::size_t* line_;
};

bool IsName(std::string_view text) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= kKeyNameBytesMax &&
         std::all_of(text.begin(), text.end(), good);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool ParseHex(std::string_view text, KeyDigest& digest) {
  if (text.size() != 2 * digest.size()) return false;
  for (std::size_t i = 0; i < digest.size(); ++i) {
    const int high = HexDigit(text[2 * i]);
    const int low = HexDigit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    digest[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

std::string Hex(const KeyDigest& digest) {
  std::string text;
  for (const std::uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

// What a value is worth reporting as: never the text itself, which may be a key in the wrong place.
constexpr std::string_view kWhere[] = {"the file", "the file's object", "\"keys\"", "a key",
                                       "\"models\""};

// Reads the tokens of the file as they come: nothing is built that is not wanted, and nothing is
// deeper than the format.
class Reader final : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(const std::size_t& line) : line_(line) {}

  absl::StatusOr<std::vector<KeyEntry>> Take() && {
    if (!status_.ok()) return status_;
    BALEEN_RETURN_IF_ERROR(CheckBudgets());
    return std::move(entries_);
  }

  bool start_object(std::size_t) override {
    if (level_ == kStart) return Enter(kTop);
    if (level_ != kKeys) return Unexpected("an object");
    if (entries_.size() >= kKeysMax) return Fail(fmt::format("more than {} keys", kKeysMax));
    entries_.emplace_back();
    fields_.clear();
    entry_line_ = field_line_ = line_;
    return Enter(kEntry);
  }

  bool key(std::string& name) override {
    field_ = name;
    field_line_ = line_;
    if (level_ == kTop) {
      if (name != "keys" || has_keys_) return Fail("the only field is \"keys\", once");
      return has_keys_ = true;
    }
    static const std::set<std::string_view> kFields = {
        "name", "sha256", "tenant", "priority_max", "tokens_per_minute", "models", "expires"};
    if (!kFields.contains(name)) return Fail("a key has a field that is none of a key's");
    if (!fields_.insert(name).second) return Fail(fmt::format("\"{}\" is there twice", name));
    return true;
  }

  bool start_array(std::size_t) override {
    if (level_ == kTop) return Enter(kKeys);
    if (level_ != kEntry || field_ != "models") return Unexpected("a list");
    return Enter(kModels);
  }

  bool end_array() override {
    if (level_ == kModels && entries_.back().caller.models.empty()) {
      return Fail("\"models\" is empty: leave it out to allow all");
    }
    return Enter(level_ == kModels ? kEntry : kTop);
  }

  bool end_object() override {
    if (level_ == kTop) return has_keys_ ? Enter(kEnd) : Fail("there is no \"keys\"");
    for (const char* needed : {"name", "sha256", "tenant"}) {
      if (!fields_.contains(needed)) {
        return Fail(
            fmt::format("the key that begins in line {} has no \"{}\"", entry_line_, needed));
      }
    }
    const KeyEntry& entry = entries_.back();
    if (!names_.insert(entry.caller.key_name).second) {
      return Fail(fmt::format("the name \"{}\" is there twice", entry.caller.key_name));
    }
    if (!digests_.insert(entry.digest).second) {
      return Fail(fmt::format("the digest of \"{}\" is there twice", entry.caller.key_name));
    }
    return Enter(kKeys);
  }

  bool string(std::string& text) override {
    if (level_ == kModels) return TakeModel(text);
    if (level_ != kEntry) return Unexpected("a text");
    KeyEntry& entry = entries_.back();
    if (field_ == "name") return TakeName(text, entry.caller.key_name);
    if (field_ == "tenant") return TakeName(text, entry.caller.tenant);
    if (field_ == "expires") return TakeTime(text);
    if (field_ != "sha256") return Unexpected("a text");
    return ParseHex(text, entry.digest) || Fail("\"sha256\" is not 64 hexadecimal digits");
  }

  bool number_unsigned(std::uint64_t number) override {
    if (level_ != kEntry) return Unexpected("a number");
    Caller& caller = entries_.back().caller;
    if (field_ == "priority_max" && number <= contract::kPriorityMax) {
      caller.priority_max = static_cast<std::uint32_t>(number);
      return true;
    }
    if (field_ == "priority_max") {
      return Fail(
          fmt::format("\"priority_max\" is {}, not 0 to {}", number, contract::kPriorityMax));
    }
    if (field_ != "tokens_per_minute") return Unexpected("a number");
    if (number == 0 || number > kTokensPerMinuteMax) {
      return Fail(fmt::format("\"tokens_per_minute\" is {}, not 1 to {}: leave it out for no limit",
                              number, kTokensPerMinuteMax));
    }
    caller.tokens_per_minute = number;
    return true;
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool number_integer(std::int64_t) override { return Unexpected("a negative number"); }
  bool number_float(double, const std::string&) override { return Unexpected("a fraction"); }
  bool binary(binary_t&) override { return Unexpected("bytes"); }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return FailAt(line_, "this is not JSON");
  }

 private:
  enum Level : std::uint8_t { kStart, kTop, kKeys, kEntry, kModels, kEnd };

  bool Enter(Level level) {
    level_ = level;
    return true;
  }

  bool FailAt(std::size_t line, std::string_view what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(fmt::format("line {}: {}", line, what));
    return false;
  }

  bool Fail(std::string_view what) {
    // A number is over when what follows it is read, which may be the next line.
    return FailAt(level_ == kEntry ? field_line_ : line_, what);
  }

  bool Unexpected(std::string_view what) {
    if (level_ == kEntry) return Fail(fmt::format("\"{}\" can not be {}", field_, what));
    if (level_ == kEnd) return Fail("there is more after the end");
    return Fail(fmt::format("{} can not be, or hold, {}", kWhere[level_], what));
  }

  bool TakeName(const std::string& text, std::string& name) {
    name = text;
    return IsName(text) || Fail(fmt::format("\"{}\" is not 1 to {} of A-Z a-z 0-9 . _ -", field_,
                                            kKeyNameBytesMax));
  }

  bool TakeModel(const std::string& text) {
    auto& models = entries_.back().caller.models;
    if (text.empty() || text.size() > contract::kModelNameBytesMax) {
      return Fail(fmt::format("a model's name has {} bytes, not 1 to {}", text.size(),
                              contract::kModelNameBytesMax));
    }
    if (models.size() >= kKeyModelsMax)
      return Fail(fmt::format("more than {} models", kKeyModelsMax));
    models.push_back(text);
    return true;
  }

  bool TakeTime(const std::string& text) {
    absl::Time time;
    std::string error;
    // It also knows words for the ends of time.
    if (text.size() > 40 || !absl::ParseTime(absl::RFC3339_full, text, &time, &error) ||
        time == absl::InfiniteFuture() || time == absl::InfinitePast()) {
      return Fail("\"expires\" is not a time like 2027-01-31T00:00:00Z");
    }
    entries_.back().expires = time;
    return true;
  }

  // One bucket for a tenant can be filled with one rate only.
  absl::Status CheckBudgets() const {
    std::map<std::string_view, const Caller*> first;
    for (const KeyEntry& entry : entries_) {
      const Caller& other = *first.try_emplace(entry.caller.tenant, &entry.caller).first->second;
      if (other.tokens_per_minute == entry.caller.tokens_per_minute) continue;
      return absl::InvalidArgumentError(
          fmt::format("the keys \"{}\" and \"{}\" of tenant \"{}\" differ in "
                      "\"tokens_per_minute\", which is the "
                      "tenant's",
                      other.key_name, entry.caller.key_name, entry.caller.tenant));
    }
    return absl::OkStatus();
  }

  const std::size_t& line_;
  Level level_ = kStart;
  bool has_keys_ = false;
  std::string field_;
  std::size_t entry_line_ = 0;
  std::size_t field_line_ = 0;
  std::set<std::string> fields_;  // of the current key
  std::set<std::string> names_;
  std::set<KeyDigest> digests_;
  std::vector<KeyEntry> entries_;
  absl::Status status_;
};

nlohmann::ordered_json ToJson(const KeyEntry& entry) {
  nlohmann::ordered_json json = {{"name", entry.caller.key_name},
                                 {"sha256", Hex(entry.digest)},
                                 {"tenant", entry.caller.tenant},
                                 {"priority_max", entry.caller.priority_max}};
  if (entry.caller.tokens_per_minute > 0) {
    json["tokens_per_minute"] = entry.caller.tokens_per_minute;
  }
  if (!entry.caller.models.empty()) json["models"] = entry.caller.models;
  if (entry.expires.has_value()) {
    json["expires"] = absl::FormatTime(absl::RFC3339_full, *entry.expires, absl::UTCTimeZone());
  }
  return json;
}

}  // namespace

absl::StatusOr<std::vector<KeyEntry>> ParseKeyFile(std::string_view text) {
  if (text.size() > kKeyFileBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} bytes, the limit is {}", text.size(), kKeyFileBytesMax));
  }
  std::size_t line = 1;
  Reader reader(line);
  Json::sax_parse(CountingIterator(text.data(), &line),
                  CountingIterator(text.data() + text.size(), &line), &reader);
  return std::move(reader).Take();
}

std::string FormatKeyFile(std::span<const KeyEntry> entries) {
  std::string text = "{\"keys\": [";
  for (std::size_t i = 0; i < entries.size(); ++i) {
    text += fmt::format("{}\n  {}", i == 0 ? "" : ",", ToJson(entries[i]).dump());
  }
  return text + (entries.empty() ? "]}\n" : "\n]}\n");
}

KeyDigest DigestOfKey(std::string_view key) {
  KeyDigest digest{};
  const int ok = EVP_Digest(key.data(), key.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  BALEEN_CHECK(ok == 1, "SHA-256 is always available");
  return digest;
}

std::string MakeKey() {
  std::array<unsigned char, 32> random{};
  BALEEN_CHECK(RAND_bytes(random.data(), random.size()) == 1, "the system has random numbers");
  std::array<unsigned char, 64> base64{};
  const int length = EVP_EncodeBlock(base64.data(), random.data(), random.size());
  std::string key(base64.begin(), base64.begin() + length);
  key.erase(key.find_last_not_of('=') + 1);
  std::replace(key.begin(), key.end(), '+', '-');
  std::replace(key.begin(), key.end(), '/', '_');
  return "bln_" + key;
}

}  // namespace baleen::router
