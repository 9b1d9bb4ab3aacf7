// golden.json of a folder of tests/golden: what transformers computes for a model (tools/golden).
//
// For positions of a few prompts it holds the float32 run's (the oracle's) most probable next
// tokens; for every position and MoE layer the experts that it chose, and by how much; and how far
// transformers' own bfloat16 run is from that: with its own choice of experts ("free"), and with
// the oracle's ("forced").
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/worker/model/watched_model.h"

namespace baleen::worker {

struct Token {
  std::int32_t id;
  double logprob;  // natural logarithm
};

// |log-probability - oracle's| over the oracle's kTop most probable tokens of one position, or of
// several.
struct Error {
  double largest = 0.0;
  double squares = 0.0;  // the sum over positions of the mean square of each
  std::size_t positions = 0;

  double rms() const { return std::sqrt(squares / static_cast<double>(positions)); }
  void Add(const Error& other) {
    largest = std::max(largest, other.largest);
    squares += other.squares;
    positions += other.positions;
  }
};

inline constexpr std::int32_t kTop = 20;

struct Prompt {
  std::vector<std::int32_t> tokens;
  std::size_t prompt_tokens = 0;
  // [i]: the distribution after tokens[prompt_tokens - 1 + i], best first; at least kTop unless the
  // vocabulary is smaller.
  std::vector<std::vector<Token>> rows;
  std::vector<Error> bfloat16_forced;  // of each row
  std::vector<Error> bfloat16_free;
  Routes experts;  // the oracle's
  // [layer][position]: the score by which the oracle's choice was made. It is the smaller of two
  // leads: the last group taken over the best one left, and the last expert taken over the best
  // other one of these groups.
  std::vector<std::vector<double>> margins;
};

struct Golden {
  std::string model;
  std::string digest;
  // Our largest error may be so many times the bfloat16 run's: 1, but for models at random.
  double largest_factor = 0.0;
  // [layer]: the largest error of a margin in the forced bfloat16 run.
  std::vector<double> bfloat16_margin_errors;
  std::vector<Prompt> prompts;
};

inline std::vector<Error> ReadErrors(const nlohmann::json& rows) {
  std::vector<Error> errors;
  for (const nlohmann::json& row : rows) {
    const double rms = row.at(1);
    errors.push_back({.largest = row.at(0), .squares = rms * rms, .positions = 1});
  }
  return errors;
}

// Throws what nlohmann::json throws: a test that cannot read its data fails.
inline Golden ReadGolden(const std::filesystem::path& path) {
  std::ifstream stream(path);
  const nlohmann::json json = nlohmann::json::parse(stream);
  Golden golden{.model = json.at("model"), .digest = json.at("digest")};
  json.at("largest_factor").get_to(golden.largest_factor);
  json.at("bfloat16_margin_errors").get_to(golden.bfloat16_margin_errors);
  for (const nlohmann::json& prompt : json.at("prompts")) {
    Prompt& read = golden.prompts.emplace_back();
    prompt.at("tokens").get_to(read.tokens);
    read.prompt_tokens = prompt.at("prompt_tokens");
    for (const nlohmann::json& row : prompt.at("top")) {
      std::vector<Token>& top = read.rows.emplace_back();
      for (const nlohmann::json& token : row) {
        top.push_back({token.at(0), token.at(1)});
      }
    }
    read.bfloat16_forced = ReadErrors(prompt.at("bfloat16_forced"));
    read.bfloat16_free = ReadErrors(prompt.at("bfloat16_free"));
    prompt.at("experts").get_to(read.experts);
    prompt.at("margins").get_to(read.margins);
  }
  return golden;
}

}  // namespace baleen::worker
