// Ten thousand strings by seed, as tools/golden/text_strings.py makes them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "tests/router/text/text_test_util.h"

namespace baleen::router {

class TextStrings {
 public:
  static constexpr int kCount = 10'000;

  TextStrings() {
    const auto golden = nlohmann::json::parse(ReadFile("tests/golden/text/strings.json"));
    state_ = golden["seed"];
    block_ = golden["block"];
    pieces_ = golden["pieces"].get<std::vector<std::string>>();
    digests_ = golden["digests"];
    for (int i = 0; i < kCount; ++i) strings_.push_back(Make());
  }

  const std::vector<std::string>& strings() const { return strings_; }

  // What PyPI's tokenizers make of them with `tokenizer`.
  std::vector<std::string> digests(const std::string& tokenizer) const {
    return digests_.at(tokenizer).get<std::vector<std::string>>();
  }

  // The same of `ids_of`, a function of a string.
  template <typename IdsOf>
  std::vector<std::string> DigestsOf(const IdsOf& ids_of) const {
    std::vector<std::string> result;
    std::uint64_t digest = 0;
    for (std::size_t i = 0; i < strings_.size(); ++i) {
      if (i % block_ == 0) digest = 0xCBF29CE484222325;
      std::vector<std::int32_t> ids = ids_of(strings_[i]);
      ids.push_back(-1);
      for (const std::int32_t id : ids) {
        for (int shift = 0; shift < 32; shift += 8) {
          digest = (digest ^ (static_cast<std::uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3;
        }
      }
      if (i % block_ == block_ - 1) result.push_back(fmt::format("{:016x}", digest));
    }
    return result;
  }

 private:
  std::uint64_t Below(std::uint64_t end) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % end;
  }

  const std::string& Piece() { return pieces_[Below(pieces_.size())]; }

  std::string CodePoint() {
    const std::uint64_t code = Below(2) != 0 ? Below(0x3000) : Below(0x110000);
    return Utf8Of(code >= 0xD800 && code < 0xE000 ? 0xFFFD : static_cast<std::uint32_t>(code));
  }

  static std::string Utf8Of(std::uint32_t code) {
    const auto tail = [code](int shift) {
      return static_cast<char>(0x80 | (code >> shift & 0x3F));
    };
    const auto lead = [code](std::uint32_t mark, int shift) {
      return static_cast<char>(mark | code >> shift);
    };
    if (code < 0x80) return {static_cast<char>(code)};
    if (code < 0x800) return {lead(0xC0, 6), tail(0)};
    if (code < 0x10000) return {lead(0xE0, 12), tail(6), tail(0)};
    return {lead(0xF0, 18), tail(12), tail(6), tail(0)};
  }

  static std::string Repeat(const std::string& text, std::uint64_t count) {
    std::string result;
    for (; count > 0; --count) result += text;
    return result;
  }

  std::string Make() {
    if (Below(20) == 0) return LongWord();
    std::string text;
    for (std::uint64_t parts = 1 + Below(24); parts > 0; --parts) {
      const std::uint64_t what = Below(10);
      if (what == 0) {
        text += CodePoint();
      } else if (what == 1) {
        const std::string code_point = CodePoint();
        text += Repeat(code_point, 1 + Below(30));
      } else if (what == 2) {
        const char white = " \t\n\r"[Below(4)];
        text += std::string(1 + Below(12), white);
      } else if (what == 3) {
        text += std::to_string(Below(10'000'000));
      } else {
        text += Piece();
      }
    }
    return text;
  }

  std::string LongWord() {
    std::string word = Piece();
    std::erase_if(word,
                  [](char c) { return std::string_view(" \t\n\r").find(c) != std::string::npos; });
    return Repeat(word, 1 + Below(40));
  }

  std::uint64_t state_ = 0;
  std::size_t block_ = 1;
  std::vector<std::string> pieces_;
  nlohmann::json digests_;
  std::vector<std::string> strings_;
};

}  // namespace baleen::router
