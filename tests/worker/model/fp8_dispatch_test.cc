// What dispatch in FP8 does to the answers of the quick-start model, compared with bf16.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/worker/model/sequence_run.h"

namespace baleen::worker {
namespace {

constexpr char kNano[] = "models/nano";
// Enough to see that nothing is broken. The figures in docs/expert-parallel.md come from 100.
constexpr int kQuestionsOfATask = 4;
constexpr std::size_t kReplyTokensMax = 250;
constexpr std::int32_t kEndOfSentence = 1;

class Vocabulary {
 public:
  Vocabulary() {
    std::ifstream stream("models/nano/tokenizer.json");
    const nlohmann::json tokenizer = nlohmann::json::parse(stream);
    for (const auto& [piece, id] : tokenizer.at("model").at("vocab").items()) {
      ids_[piece] = id.get<std::int32_t>();
    }
    for (const nlohmann::json& token : tokenizer.at("added_tokens")) {
      ids_[token.at("content").get<std::string>()] = token.at("id").get<std::int32_t>();
    }
    for (const auto& [piece, id] : ids_) pieces_[id] = piece;
  }

  std::int32_t Id(const std::string& piece) const { return ids_.at(piece); }
  const std::string& Piece(std::int32_t id) const { return pieces_.at(id); }

 private:
  std::map<std::string, std::int32_t> ids_;
  std::map<std::int32_t, std::string> pieces_;
};

struct Question {
  std::vector<std::int32_t> prompt;
  int answer = 0;
};

// "What is A + B?" and its like; every digit is a token.
Question Ask(const Vocabulary& vocabulary, char operation, int a, int b) {
  Question question;
  const auto add = [&](const std::string& piece) {
    question.prompt.push_back(vocabulary.Id(piece));
  };
  const auto add_number = [&](int number) {
    add("Ġ");
    for (const char digit : std::to_string(number)) add(std::string(1, digit));
  };
  add("<｜begin▁of▁sentence｜>");
  add("<｜User｜>");
  if (operation == '>') {
    for (const char* piece : {"Which", "Ġis", "Ġlarger", ","}) add(piece);
  } else {
    for (const char* piece : {"What", "Ġis"}) add(piece);
  }
  add_number(a);
  add(operation == '>' ? "Ġor" : std::string("Ġ") + operation);
  add_number(b);
  for (const char* piece : {"?", "<｜Assistant｜>", "<think>", "Ċ"}) add(piece);
  question.answer = operation == '+'   ? a + b
                    : operation == '-' ? a - b
                    : operation == '*' ? a * b
                                       : std::max(a, b);
  return question;
}

std::vector<Question> Questions(const Vocabulary& vocabulary) {
  std::mt19937_64 random(11);
  const auto number = [&random] {
    constexpr std::array kLimits = {10, 100, 1000, 10000};
    return static_cast<int>(random() % kLimits[random() % 4]);
  };
  std::vector<Question> questions;
  for (const char operation : {'+', '-', '*', '>'}) {
    for (int i = 0; i < kQuestionsOfATask; ++i) {
      int a = number();
      int b = operation == '*' ? static_cast<int>(random() % 10) : number();
      if (operation == '-' && a < b) std::swap(a, b);
      if (operation == '>' && a == b) ++a;
      questions.push_back(Ask(vocabulary, operation, a, b));
    }
  }
  return questions;
}

// Whether the answer is said after the thought, as a number of its own.
bool IsRight(const Vocabulary& vocabulary, const std::vector<std::int32_t>& reply, int answer) {
  bool thought = false;
  std::string number;
  bool found = false;
  for (const std::int32_t token : reply) {
    const std::string& piece = vocabulary.Piece(token);
    thought |= piece == "</think>";
    const bool digit = piece.size() == 1 && std::isdigit(static_cast<unsigned char>(piece[0])) != 0;
    if (thought && digit) {
      number += piece;
    } else {
      found |= number == std::to_string(answer);
      number.clear();
    }
  }
  return found || number == std::to_string(answer);
}

struct Reply {
  std::vector<std::int32_t> tokens;   // what was taken
  std::vector<SampledToken> choices;  // what the model would take there
};

// Greedy replies, many at a time. `told` (null: the model's own): the tokens to take.
std::vector<Reply> Answer(LoadedModel& model, const std::vector<Question>& questions,
                          const std::vector<Reply>* told) {
  constexpr std::size_t kTogether = 16;
  std::vector<Reply> replies(questions.size());
  const SampleSpec spec{.logprobs = 20};
  for (std::size_t begin = 0; begin < questions.size(); begin += kTogether) {
    const std::size_t end = std::min(begin + kTogether, questions.size());
    const auto limit = [&](std::size_t i) {
      return told == nullptr ? kReplyTokensMax : (*told)[i].tokens.size();
    };
    while (true) {
      std::vector<std::size_t> running;
      std::vector<SequenceStep> steps;
      std::vector<std::vector<std::uint32_t>> tables;
      for (std::size_t i = begin; i < end; ++i) {
        const Reply& reply = replies[i];
        const bool ended = !reply.tokens.empty() && reply.tokens.back() == kEndOfSentence;
        if (!ended && reply.tokens.size() < limit(i)) running.push_back(i);
      }
      if (running.empty()) break;
      for (const std::size_t i : running) {
        tables.push_back(Blocks(static_cast<std::uint32_t>(i - begin) * 5, 5));
        const std::vector<std::int32_t>& prompt = questions[i].prompt;
        const std::vector<std::int32_t>& tokens = replies[i].tokens;
        const bool first = tokens.empty();
        steps.push_back(
            {.tokens = first ? std::span(prompt) : std::span(tokens).last(1),
             .position = static_cast<std::uint32_t>(first ? 0 : prompt.size() + tokens.size() - 1),
             .block_table = tables.back(),
             .form = first ? AttentionForm::kPrefill : AttentionForm::kAbsorbed,
             .sample = &spec});
      }
      const std::vector<SampledToken> sampled = model.Step(steps);
      for (std::size_t j = 0; j < running.size(); ++j) {
        Reply& reply = replies[running[j]];
        reply.tokens.push_back(told == nullptr ? sampled[j].token
                                               : (*told)[running[j]].tokens[reply.tokens.size()]);
        reply.choices.push_back(sampled[j]);
      }
    }
  }
  return replies;
}

// Of log-probabilities.
struct Errors {
  void Add(double error) {
    ++count;
    squares += error * error;
    largest = std::max(largest, std::fabs(error));
  }
  double Rms() const { return std::sqrt(squares / count); }

  int count = 0;
  double squares = 0;
  double largest = 0;
};

TEST(Fp8Dispatch, AnswersAsBf16Does) {
  const Vocabulary vocabulary;
  const std::vector<Question> questions = Questions(vocabulary);
  const auto load = [](DispatchFormat dispatch) {
    return LoadedModel(ModelOptions{.directory = kNano, .dispatch = dispatch}, 80);
  };
  LoadedModel bf16 = load(DispatchFormat::kBf16);
  LoadedModel fp8 = load(DispatchFormat::kFp8);
  const std::vector<Reply> expected = Answer(bf16, questions, nullptr);
  const std::vector<Reply> forced = Answer(fp8, questions, &expected);
  const std::vector<Reply> free = Answer(fp8, questions, nullptr);

  int right_bf16 = 0;
  int right_fp8 = 0;
  int same_replies = 0;
  int positions = 0;
  int same_tokens = 0;
  Errors chosen;
  Errors probable;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    right_bf16 += IsRight(vocabulary, expected[i].tokens, questions[i].answer) ? 1 : 0;
    right_fp8 += IsRight(vocabulary, free[i].tokens, questions[i].answer) ? 1 : 0;
    same_replies += free[i].tokens == expected[i].tokens ? 1 : 0;
    for (std::size_t at = 0; at < expected[i].tokens.size(); ++at) {
      const SampledToken& mine = forced[i].choices[at];
      const SampledToken& theirs = expected[i].choices[at];
      ++positions;
      same_tokens += mine.token == theirs.token ? 1 : 0;
      const std::map<std::int32_t, float> logprobs(mine.top.begin(), mine.top.end());
      for (const auto& [token, logprob] : theirs.top) {
        const auto found = logprobs.find(token);
        if (found == logprobs.end()) continue;
        probable.Add(found->second - logprob);
        if (token == theirs.token) chosen.Add(found->second - logprob);
      }
    }
  }
  RecordProperty("questions", std::to_string(questions.size()));
  RecordProperty("right_bf16", std::to_string(right_bf16));
  RecordProperty("right_fp8", std::to_string(right_fp8));
  RecordProperty("same_replies", std::to_string(same_replies));
  RecordProperty("positions", std::to_string(positions));
  RecordProperty("same_tokens", std::to_string(same_tokens));
  RecordProperty("chosen_rms", std::to_string(chosen.Rms()));
  RecordProperty("chosen_largest", std::to_string(chosen.largest));
  RecordProperty("probable_rms", std::to_string(probable.Rms()));
  RecordProperty("probable_largest", std::to_string(probable.largest));
  const auto count = static_cast<int>(questions.size());
  EXPECT_GE(right_bf16, count * 9 / 10) << "the questions are asked as the model knows them";
  EXPECT_GE(right_fp8, right_bf16 - 1);
  EXPECT_GE(same_tokens, positions * 99 / 100);
  EXPECT_LE(chosen.Rms(), 0.01);
  EXPECT_LE(probable.Rms(), 0.5);
  EXPECT_GT(probable.Rms(), 0.0) << "not the same arithmetic";
}

}  // namespace
}  // namespace baleen::worker
