// The options of a request: what is given is sent, and only that.
#include "tools/cli/client/request_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "proto/contract/limits.h"

namespace baleen::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

RequestOptions Parse(std::vector<std::string> arguments) {
  CLI::App app;
  RequestOptions options;
  AddRequestOptions(app, options);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  app.parse(arguments);
  return options;
}

TEST(RequestOptions, NothingGivenNothingSet) {
  v1::GenerateRequest request;
  Fill(Parse({}), *request.mutable_sampling(), *request.mutable_stop());
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.sampling().has_top_p());
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_FALSE(request.stop().has_max_tokens());
}

TEST(RequestOptions, EverythingGivenEverythingSet) {
  v1::GenerateRequest request;
  Fill(Parse({"--temperature", "0.7", "--top-k", "5", "--top-p", "0.9", "--seed",
              "18446744073709551615", "--max-tokens", "32768"}),
       *request.mutable_sampling(), *request.mutable_stop());
  EXPECT_EQ(request.sampling().temperature(), 0.7f);
  EXPECT_EQ(request.sampling().top_k(), 5u);
  EXPECT_EQ(request.sampling().top_p(), 0.9f);
  EXPECT_EQ(request.sampling().seed(), ~std::uint64_t{0});
  EXPECT_EQ(request.stop().max_tokens(), 32768u);
}

TEST(RequestOptions, OddTemperaturesReachTheRouter) {
  EXPECT_EQ(Parse({"--temperature", "-1"}).temperature, -1.0f);
  EXPECT_TRUE(std::isnan(*Parse({"--temperature", "nan"}).temperature));
  EXPECT_TRUE(std::isinf(*Parse({"--temperature", "inf"}).temperature));
}

TEST(RequestOptions, WhatIsNoNumberIsRefused) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--max-tokens", "-5"},
                                                    {"--max-tokens", "many"},
                                                    {"--max-tokens", "4294967296"},
                                                    {"--seed", "-1"},
                                                    {"--temperature", "hot"},
                                                    {"--timeout-seconds", "0"},
                                                    {"--timeout-seconds", "86401"}}) {
    EXPECT_THROW(Parse(arguments), CLI::ParseError) << arguments[0] << " " << arguments[1];
  }
}

TEST(RouterAddress, OptionThenEnvironmentThenError) {
  ::setenv("BALEEN_ROUTER", "env:1", 1);
  EXPECT_EQ(RouterAddress("given:2").value(), "given:2");
  EXPECT_EQ(RouterAddress("").value(), "env:1");
  ::setenv("BALEEN_ROUTER", "env", 1);
  EXPECT_THAT(std::string(RouterAddress("").status().message()),
              HasSubstr("BALEEN_ROUTER: 'env' is not host:port with a port from 1 up to 65535"));
  EXPECT_THAT(std::string(RouterAddress("127.0.0.1:99999").status().message()),
              HasSubstr("--router: '127.0.0.1:99999'"));
  ::unsetenv("BALEEN_ROUTER");
  EXPECT_THAT(std::string(RouterAddress("").status().message()), HasSubstr("--router is missing"));
}

TEST(ParseTokenIds, TakesListsAsPeopleWriteThem) {
  EXPECT_THAT(ParseTokenIds("0,5,6").value(), ElementsAre(0, 5, 6));
  EXPECT_THAT(ParseTokenIds(" 1, 2 ,3\n").value(), ElementsAre(1, 2, 3));
  EXPECT_THAT(ParseTokenIds("-1,2147483647").value(), ElementsAre(-1, 2147483647));
  EXPECT_THAT(ParseTokenIds("").value(), IsEmpty()) << "the router says that it is empty";
}

TEST(ParseTokenIds, NamesTheEntryThatIsWrong) {
  struct Case {
    const char* text;
    const char* message;
  };
  for (const Case& c :
       {Case{"1,x,3", "entry 1 is 'x'"}, Case{"2147483648", "entry 0 is"},
        Case{"1,,2", "entry 1 is ''"}, Case{"1,2,", "entry 2 is ''"}, Case{",", "entry 0 is ''"},
        Case{"1 2", "entry 0 is '1 2'"}, Case{"1.5", "entry 0 is '1.5'"}}) {
    EXPECT_THAT(std::string(ParseTokenIds(c.text).status().message()), HasSubstr(c.message))
        << c.text;
  }
}

TEST(ParseTokenIds, IsBounded) {
  std::string text = "1";
  for (std::uint32_t i = 1; i < contract::kContextTokensMax; ++i) text += ",1";
  EXPECT_EQ(ParseTokenIds(text)->size(), contract::kContextTokensMax);
  EXPECT_THAT(std::string(ParseTokenIds(text + ",1").status().message()),
              HasSubstr("more than 163840 entries"));
}

TEST(CheckUtf8, NamesTheTextAndThePlace) {
  EXPECT_TRUE(CheckUtf8("the prompt", "gr\xc3\xbc\xc3\x9f dich").ok());
  EXPECT_EQ(CheckUtf8("the prompt", "ab\xff").message(),
            "invalid_request: the prompt is not valid UTF-8 at byte 2");
}

}  // namespace
}  // namespace baleen::cli
