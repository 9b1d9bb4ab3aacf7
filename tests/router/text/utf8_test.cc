// Utf8Assembler and FindInvalidUtf8.
#include "router/text/utf8.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace baleen::router {
namespace {

#define FFFD "\xEF\xBF\xBD"

struct Case {
  const char* name;
  std::string bytes;
  std::size_t invalid_at;  // npos: well-formed
  std::string text;        // as Rust's String::from_utf8_lossy
};

constexpr std::size_t kNone = std::string_view::npos;

// Expected texts follow Unicode 15, section 3.9, "U+FFFD substitution of maximal subparts".
std::vector<Case> Cases() {
  return {
      {"empty", "", kNone, ""},
      {"ascii", "abc", kNone, "abc"},
      {"nul", std::string("a\0b", 3), kNone, std::string("a\0b", 3)},
      {"two bytes", "\xC2\x80 \xDF\xBF", kNone, "\xC2\x80 \xDF\xBF"},
      {"three bytes", "\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF", kNone,
       "\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"},
      {"four bytes", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", kNone, "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
      {"lone continuation", "a\x80z", 1, "a" FFFD "z"},
      {"overlong two", "\xC0\xAF", 0, FFFD FFFD},
      {"overlong three", "\xE0\x80\xAF", 0, FFFD FFFD FFFD},
      {"overlong four", "\xF0\x80\x80\xAF", 0, FFFD FFFD FFFD FFFD},
      {"surrogate", "\xED\xA0\x80", 0, FFFD FFFD FFFD},
      {"above the last", "\xF4\x90\x80\x80", 0, FFFD FFFD FFFD FFFD},
      {"no such lead", "\xF5\xFF", 0, FFFD FFFD},
      {"cut two", "a\xC3", 1, "a" FFFD},
      {"cut three", "\xE4\xBD", 0, FFFD},
      {"cut four", "\xF0\x9F\x98", 0, FFFD},
      {"cut by ascii", "\xF0\x9F\x98z", 0, FFFD "z"},
      {"cut by lead", "\xE4\xBD\xE4\xBD\xA0", 0, FFFD "\xE4\xBD\xA0"},
      {"unicode table 3-8",
       "a\xF1\x80\x80\xE1\x80\xC2"
       "b\x80"
       "c\x80\xBF"
       "d",
       1, "a" FFFD FFFD FFFD "b" FFFD "c" FFFD FFFD "d"},
  };
}

std::string Assemble(std::string_view bytes, const std::vector<std::size_t>& cuts) {
  Utf8Assembler assembler;
  std::string text;
  std::size_t begin = 0;
  for (const std::size_t cut : cuts) {
    std::string piece;
    assembler.Append(bytes.substr(begin, cut - begin), &piece);
    EXPECT_TRUE(IsValidUtf8(piece)) << "piece up to byte " << cut;
    EXPECT_LE(assembler.pending_bytes(), Utf8Assembler::kPendingBytesMax);
    text += piece;
    begin = cut;
  }
  assembler.Append(bytes.substr(begin), &text);
  assembler.Finish(&text);
  EXPECT_EQ(assembler.pending_bytes(), 0u);
  return text;
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  for (const Case& c : Cases()) {
    EXPECT_EQ(FindInvalidUtf8(c.bytes), c.invalid_at) << c.name;
    EXPECT_EQ(IsValidUtf8(c.bytes), c.invalid_at == kNone) << c.name;
  }
}

TEST(Utf8Test, TheTextDoesNotDependOnTheCuts) {
  for (const Case& c : Cases()) {
    EXPECT_EQ(Assemble(c.bytes, {}), c.text) << c.name;
    std::vector<std::size_t> every;
    for (std::size_t cut = 0; cut <= c.bytes.size(); ++cut) {
      EXPECT_EQ(Assemble(c.bytes, {cut}), c.text) << c.name << " cut at " << cut;
      every.push_back(cut);
    }
    EXPECT_EQ(Assemble(c.bytes, every), c.text) << c.name << " byte by byte";
  }
}

TEST(Utf8Test, RandomBytesBecomeTheSameTextHoweverTheyAreCut) {
  constexpr unsigned kSeed = 1;
  std::mt19937 random(kSeed);
  // Mostly bytes that nearly make characters.
  const std::string likely = "a\x80\x9F\xA0\xBF\xC2\xDF\xE0\xED\xEF\xF0\xF1\xF4";
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (std::size_t i = random() % 40; i > 0; --i) {
      const bool any = random() % 8 == 0;
      bytes += any ? static_cast<char>(random() % 256) : likely[random() % likely.size()];
    }
    std::vector<std::size_t> cuts;
    for (std::size_t at = 0; at < bytes.size(); at += random() % 4) cuts.push_back(at);
    const std::string whole = Assemble(bytes, {});
    EXPECT_TRUE(IsValidUtf8(whole));
    EXPECT_EQ(Assemble(bytes, cuts), whole) << "seed " << kSeed << " round " << round;
    if (IsValidUtf8(bytes)) {
      EXPECT_EQ(whole, bytes);
    }
  }
}

}  // namespace
}  // namespace baleen::router
