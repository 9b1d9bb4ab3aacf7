// The text of the keys' file: what is read, what is refused and with which line.
#include "router/access/key_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace baleen::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kDigest(64, 'a');
const std::string kOther(64, 'b');

std::string Key(const std::string& name, const std::string& digest, const std::string& more = "") {
  return "{\"name\": \"" + name + "\", \"sha256\": \"" + digest + "\", \"tenant\": \"t\"" + more +
         "}";
}
std::string File(const std::string& keys) { return "{\"keys\": [\n" + keys + "\n]}\n"; }

std::string ErrorOf(const std::string& text) {
  const auto entries = ParseKeyFile(text);
  return entries.ok() ? "" : std::string(entries.status().message());
}

TEST(KeyFile, IsRead) {
  const auto entries =
      ParseKeyFile(File(Key("ci", kDigest,
                            R"(, "priority_max": 3, "tokens_per_minute": 1000, "models": ["a", "b"],
                  "expires": "2027-01-31T00:00:00Z")") +
                        "," + Key("all", kOther, R"(, "tokens_per_minute": 1000)")));
  ASSERT_TRUE(entries.ok()) << entries.status();
  const KeyEntry& ci = (*entries)[0];
  EXPECT_EQ(ci.caller.key_name, "ci");
  EXPECT_EQ(ci.caller.tenant, "t");
  EXPECT_EQ(ci.caller.priority_max, 3u);
  EXPECT_EQ(ci.caller.tokens_per_minute, 1000u);
  EXPECT_THAT(ci.caller.models, ElementsAre("a", "b"));
  EXPECT_TRUE(ci.caller.MayUse("b"));
  EXPECT_FALSE(ci.caller.MayUse("c"));
  EXPECT_EQ(ci.expires, absl::FromCivil(absl::CivilDay(2027, 1, 31), absl::UTCTimeZone()));
  const KeyEntry& all = (*entries)[1];
  EXPECT_EQ(all.caller.priority_max, contract::kPriorityMax);
  EXPECT_TRUE(all.caller.MayUse("c"));
  EXPECT_EQ(all.expires, std::nullopt);
  EXPECT_THAT(*ParseKeyFile("{\"keys\": []}"), IsEmpty());
}

TEST(KeyFile, IsWrittenAsItIsRead) {
  auto entries = *ParseKeyFile(
      File(Key("ci", kDigest, R"(, "models": ["a"], "expires": "2027-01-31T00:00:00.5Z")") + "," +
           Key("x", kOther, R"(, "priority_max": 0)")));
  const std::string text = FormatKeyFile(entries);
  const auto again = ParseKeyFile(text);
  ASSERT_TRUE(again.ok()) << again.status() << text;
  EXPECT_EQ(FormatKeyFile(*again), text);
  EXPECT_EQ((*again)[0].expires, entries[0].expires);
  EXPECT_EQ((*again)[0].digest, entries[0].digest);
  EXPECT_EQ(FormatKeyFile({}), "{\"keys\": []}\n");
}

TEST(KeyFile, NamesTheLineOfWhatIsWrong) {
  EXPECT_EQ(
      ErrorOf(File(Key("a", kDigest) + ",\n" + Key("b", kOther, ",\n\"priority_max\": 10\n"))),
      "line 4: \"priority_max\" is 10, not 0 to 9");
  EXPECT_EQ(ErrorOf("{\"keys\": [\n\n{\"name\": \"a\"}\n]}"),
            "line 3: the key that begins in line 3 has no \"sha256\"");
  EXPECT_EQ(ErrorOf(File(Key("a", kDigest)) + "\n\n{"), "line 6: this is not JSON");
}

TEST(KeyFile, RefusesWhatItDoesNotKnow) {
  const auto with = [](const std::string& more) { return ErrorOf(File(Key("a", kDigest, more))); };
  EXPECT_THAT(with(R"(, "token_per_minute": 5)"), HasSubstr("a field that is none of a key's"));
  EXPECT_THAT(with(R"(, "name": "b")"), HasSubstr("\"name\" is there twice"));
  EXPECT_THAT(with(R"(, "priority_max": -1)"), HasSubstr("can not be a negative number"));
  EXPECT_THAT(with(R"(, "priority_max": 1.5)"), HasSubstr("can not be a fraction"));
  EXPECT_THAT(with(R"(, "priority_max": "1")"), HasSubstr("can not be a text"));
  EXPECT_THAT(with(R"(, "priority_max": null)"), HasSubstr("can not be null"));
  EXPECT_THAT(with(R"(, "priority_max": 1e400)"), HasSubstr("not JSON"));
  EXPECT_THAT(with(R"(, "tokens_per_minute": 0)"), HasSubstr("not 1 to 1000000000"));
  EXPECT_THAT(with(R"(, "tokens_per_minute": 18446744073709551615)"), HasSubstr("not 1 to"));
  EXPECT_THAT(with(R"(, "tokens_per_minute": 99999999999999999999)"), HasSubstr("a fraction"));
  EXPECT_THAT(with(R"(, "models": [])"), HasSubstr("\"models\" is empty"));
  EXPECT_THAT(with(R"(, "models": [[]])"), HasSubstr("can not be, or hold, a list"));
  EXPECT_THAT(with(R"(, "models": [""])"), HasSubstr("0 bytes"));
  EXPECT_THAT(with(R"(, "models": {})"), HasSubstr("can not be an object"));
  EXPECT_THAT(with(R"(, "expires": "tomorrow")"), HasSubstr("not a time like"));
  EXPECT_THAT(with(R"(, "expires": "infinite-future")"), HasSubstr("not a time like"));
  EXPECT_THAT(with(R"(, "expires": 5)"), HasSubstr("can not be a number"));
  for (const char* text : {"", "[]", "5", "null", "{}", "{\"keys\": {}}", "{\"keys\": [5]}",
                           "{\"keys\": [], \"keys\": []}", "{\"other\": 1}", "{\"keys\": []} {}",
                           "{\"keys\": [", "\xff\xfe"}) {
    EXPECT_THAT(ErrorOf(text), HasSubstr("line 1: ")) << text;
  }
}

TEST(KeyFile, RefusesKeysThatContradictEachOther) {
  EXPECT_THAT(ErrorOf(File(Key("a", kDigest) + "," + Key("a", kOther))),
              HasSubstr("the name \"a\" is there twice"));
  EXPECT_THAT(ErrorOf(File(Key("a", kDigest) + "," + Key("b", std::string(64, 'A')))),
              HasSubstr("the digest of \"b\" is there twice"));
  EXPECT_THAT(
      ErrorOf(File(Key("a", kDigest, R"(, "tokens_per_minute": 5)") + "," + Key("b", kOther))),
      HasSubstr("\"a\" and \"b\" of tenant \"t\" differ in \"tokens_per_minute\""));
}

TEST(KeyFile, RefusesNamesThatALogCouldMistake) {
  for (const std::string name : {"", "a b", "a\\n", "\\u0000", "\xc3\xa4", "x/y"}) {
    EXPECT_THAT(ErrorOf(File(Key(name, kDigest))), HasSubstr("\"name\" is not 1 to 64")) << name;
  }
  EXPECT_NE(ErrorOf(File(Key(std::string(65, 'n'), kDigest))), "");
}

// An error that shows what was written there would show a key that somebody has put in the place of
// its digest.
TEST(KeyFile, ErrorsNeverShowValues) {
  const std::string key = MakeKey();
  for (const std::string& text :
       {File(Key("a", key)), File(Key("a", kDigest, ", \"expires\": \"" + key + "\"")),
        File(Key("a", kDigest, ", \"" + key + "\": 1")), File(Key(key + key, kDigest)), key}) {
    EXPECT_THAT(ErrorOf(text), ::testing::Not(HasSubstr(key.substr(4, 16)))) << "of a " << text;
    EXPECT_NE(ErrorOf(text), "");
  }
}

TEST(KeyFile, IsBounded) {
  std::string keys;
  for (std::size_t i = 0; i <= kKeysMax; ++i) {
    keys += (i == 0 ? "" : ",\n") +
            Key("k" + std::to_string(i), kDigest.substr(8) + fmt::format("{:08x}", i));
  }
  EXPECT_THAT(ErrorOf(File(keys)), HasSubstr("more than 10000 keys"));
  EXPECT_THAT(ErrorOf(std::string(kKeyFileBytesMax + 1, ' ')), HasSubstr("the limit is 4194304"));
  std::string models;
  for (std::size_t i = 0; i <= kKeyModelsMax; ++i) models += (i == 0 ? "\"m\"" : ", \"m\"");
  EXPECT_THAT(ErrorOf(File(Key("a", kDigest, ", \"models\": [" + models + "]"))),
              HasSubstr("more than 64 models"));
  EXPECT_NE(ErrorOf(std::string(1'000'000, '[')), "") << "depth is no recursion";
}

TEST(MakeKey, IsRandomAndPrintable) {
  std::set<std::string> keys;
  for (int i = 0; i < 100; ++i) {
    const std::string key = MakeKey();
    EXPECT_EQ(key.size(), 47u);
    EXPECT_EQ(key.substr(0, 4), "bln_");
    EXPECT_EQ(
        key.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
        std::string::npos);
    keys.insert(key);
  }
  EXPECT_EQ(keys.size(), 100u);
}

}  // namespace
}  // namespace baleen::router
