// The command line: help that fits a screen, and errors that name the option.
#include "tools/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

namespace baleen::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::size_t kScreenLines = 28;
constexpr std::size_t kScreenColumns = 80;

ParsedCommandLine Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "baleen");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

class Help : public ::testing::TestWithParam<const char*> {};

TEST_P(Help, FitsAScreen) {
  const std::string command = GetParam();
  const ParsedCommandLine parsed =
      command.empty() ? Parse({"--help"}) : Parse({command.c_str(), "--help"});
  EXPECT_EQ(parsed.run, nullptr);
  EXPECT_EQ(parsed.exit_code, 0);
  EXPECT_THAT(parsed.out, HasSubstr("--help"));
  std::istringstream lines(parsed.out);
  std::string line;
  std::size_t count = 0;
  while (std::getline(lines, line)) {
    ++count;
    EXPECT_LE(line.size(), kScreenColumns) << line;
  }
  EXPECT_LE(count, kScreenLines) << parsed.out;
}

INSTANTIATE_TEST_SUITE_P(Commands, Help,
                         ::testing::Values("", "up", "demo", "chat", "generate", "placement",
                                           "keys", "certs", "doctor"),
                         [](const auto& info) {
                           return *info.param == '\0' ? "baleen" : std::string(info.param);
                         });

TEST(CommandLine, Version) {
  const ParsedCommandLine parsed = Parse({"--version"});
  EXPECT_EQ(parsed.exit_code, 0);
  EXPECT_THAT(parsed.out, StartsWith("baleen 0."));
}

TEST(CommandLine, AGoodOneRuns) {
  for (const std::vector<const char*>& arguments :
       {std::vector<const char*>{"up", "--model", "m"},
        {"up", "--model", "m", "--prefill", "2", "--decode", "2", "--json"},
        {"up", "--model", "m", "--prefill", "1x4", "--decode", "2x2", "--redundant-experts", "2",
         "--placement", "p.json", "--dispatch", "fp8", "--rebalance-seconds", "0", "--step-wait-ms",
         "5000"},
        {"demo", "--model", "m", "--mixed", "1x2"},
        {"doctor", "--workers", "2x4"},
        {"placement", "--counts", "c.json", "--ranks", "4", "--output", "p.json"},
        {"placement", "--group-leader", "unix-abstract:b-decode-0", "--apply", "--json"},
        {"placement", "--group-leader", "h:7100", "--save-counts", "c.json"},
        {"chat", "--router", "h:1", "--once", "hello", "--json"},
        {"chat"},
        {"generate", "--model", "m", "--token-ids", "0,5,6", "--max-tokens", "1", "--logprobs",
         "20", "--json"},
        {"generate", "--router", "h:1", "--prompt", "", "--temperature", "-1"},
        {"doctor"},
        {"demo", "--model", "m", "--question", "2+2?"}}) {
    const ParsedCommandLine parsed = Parse(arguments);
    EXPECT_NE(parsed.run, nullptr) << arguments[0] << ": " << parsed.err;
  }
}

TEST(CommandLine, ABadOneNamesWhatIsWrongInOneLine) {
  struct Case {
    std::vector<const char*> arguments;
    const char* names;
  };
  for (const Case& c : std::vector<Case>{
           {{}, "baleen --help"},
           {{"sing"}, "sing"},
           {{"up"}, "--model"},
           {{"up", "--model", "m", "--prefill", "-1"}, "--prefill"},
           {{"up", "--model", "m", "--log-level", "loud"}, "loud"},
           {{"up", "--model", "m", "--drain-seconds", "9999"}, "--drain-seconds"},
           {{"chat", "--json"}, "--once"},
           {{"chat", "--router"}, "--router"},
           {{"up", "--model", "m", "--sequences-max", "0"}, "--sequences-max: Value 0"},
           {{"up", "--model", "m", "--step-tokens-max", "0"}, "range 1 to 16384"},
           {{"up", "--model", "m", "--mixed", "65"},
            "--mixed: '65' is not GROUPSxRANKS, each from 1 to 64, nor a number of groups of one "
            "rank, 0 to 64"},
           {{"up", "--model", "m", "--prefill", "4x0"}, "--prefill: '4x0' is not GROUPSxRANKS"},
           {{"up", "--model", "m", "--decode", "9x8"}, "--decode: '9x8' makes 72 workers"},
           {{"up", "--model", "m", "--decode", "1x2x2"}, "--decode"},
           {{"up", "--model", "m", "--dispatch", "fp16"}, "fp16"},
           {{"up", "--model", "m", "--step-wait-ms", "0"}, "--step-wait-ms: Value 0"},
           {{"up", "--model", "m", "--rebalance-seconds", "x"}, "--rebalance-seconds"},
           {{"up", "--model", "m", "--redundant-experts", "5000"}, "range 0 to 4096"},
           {{"placement", "--counts", "c", "--ranks", "0"}, "--ranks: Value 0"},
           {{"placement", "--group-leader", "h"}, "--group-leader: 'h' is neither host:port"},
           {{"placement", "--group-leader", "unix-abstract:"}, "neither host:port nor"},
           {{"doctor", "--workers", "0"}, "from 1 worker on"},
           {{"up", "--model", "m", "--listen", "a:99999"}, "--listen: 'a:99999'"},
           {{"demo", "--model", "m", "--metrics-listen", "a"}, "--metrics-listen"},
           {{"chat", "--router", "127.0.0.1:99999"}, "--router: '127.0.0.1:99999'"},
           {{"chat", "--seed", "18446744073709551616"}, "18446744073709551615"},
           {{"generate", "--router", "127.0.0.1"}, "port from 1 up to 65535"},
           {{"generate", "--max-tokens", "-1"}, "range 1 to 32768"},
           {{"generate", "--max-tokens", "0"}, "range 1 to 32768"},
           {{"generate", "--max-tokens", "32769"}, "range 1 to 32768"},
           {{"generate", "--max-tokens", "010"}, "--max-tokens: Value 010"},
           {{"generate", "--logprobs", "21"}, "range 0 to 20"},
           {{"generate", "--max-tokens", "x"}, "--max-tokens"},
           {{"generate", "--model", "m", "--unknown"}, "--unknown"},
           {{"doctor", "--workers", "65"}, "--workers"}}) {
    const ParsedCommandLine parsed = Parse(c.arguments);
    EXPECT_EQ(parsed.run, nullptr);
    EXPECT_EQ(parsed.exit_code, 2);
    EXPECT_THAT(parsed.err, StartsWith("error: "));
    EXPECT_THAT(parsed.err, HasSubstr(c.names));
    EXPECT_THAT(parsed.err, EndsWith("--help')\n"));
    EXPECT_EQ(parsed.err.find('\n'), parsed.err.size() - 1) << parsed.err;
  }
}

TEST(CommandLine, OptionsThatMakeNoRequestAreUsageErrors) {
  for (const std::vector<const char*>& arguments :
       {std::vector<const char*>{"generate", "--model", "m"},
        {"generate", "--model", "m", "--prompt", "a", "--token-ids", "1"},
        {"generate", "--model", "m", "--router", "h:1", "--prompt", "a"},
        {"generate", "--model", "m", "--token-ids", "1,x"},
        {"generate", "--prompt", "a"},
        {"chat", "--once", "a"},
        {"up", "--model", "m", "--prefill", "1", "--decode", "0"},
        {"demo", "--model", "m", "--prefill", "64", "--decode", "1"},
        {"placement"},
        {"placement", "--counts", "c"},
        {"placement", "--counts", "c", "--group-leader", "h:1"},
        {"placement", "--counts", "c", "--ranks", "2", "--apply"},
        {"placement", "--counts", "c", "--ranks", "2", "--save-counts", "d"},
        {"up", "--model", "m", "--prefill", "8x8", "--decode", "1"},
        {"up", "--model", "m", "--placement", "p.json"},
        {"up", "--model", "models/nano", "--mixed", "1x3"}}) {
    const ParsedCommandLine parsed = Parse(arguments);
    ASSERT_NE(parsed.run, nullptr) << parsed.err;
    EXPECT_EQ(parsed.run(), 2) << arguments[0] << " " << arguments[1];
  }
}

}  // namespace
}  // namespace baleen::cli
