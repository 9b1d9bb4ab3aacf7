// Grammars without a language: which tokens may come is a rule of arithmetic that tests can follow.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "worker/grammar/reply_grammar.h"

namespace baleen::worker {

// One thread.
class FakeGrammars final : public Grammars {
 public:
  explicit FakeGrammars(std::uint32_t vocabulary_size) : vocabulary_size_(vocabulary_size) {}

  // Whether `token` may come after `accepted`, the tokens since the grammar began.
  static bool Allows(std::span<const std::int32_t> accepted, std::int32_t token) {
    std::uint32_t state = 5;
    for (const std::int32_t before : accepted) {
      state = state * 31 + static_cast<std::uint32_t>(before);
    }
    return (static_cast<std::uint32_t>(token) + state) % 3 == 0;
  }
  // The same after the whole reply so far.
  static bool AllowsAfter(std::optional<std::int32_t> after_token,
                          std::span<const std::int32_t> reply, std::int32_t token) {
    std::size_t begin = 0;
    if (after_token.has_value()) {
      while (begin < reply.size() && reply[begin] != *after_token) ++begin;
      if (begin++ == reply.size()) return true;
    }
    return Allows(reply.subspan(begin), token);
  }

  std::unique_ptr<ReplyGrammar> Begin(text::GrammarSource source,
                                      std::optional<std::int32_t> after_token) override {
    sources.push_back(std::move(source));
    return std::make_unique<Reply>(*this, after_token);
  }

  // Knobs.
  absl::StatusOr<bool> prepared = true;
  absl::Status mask_status;
  bool allow_nothing = false;
  // What has happened.
  std::vector<text::GrammarSource> sources;
  int awaited = 0;

 private:
  class Reply final : public ReplyGrammar, public TokenMask {
   public:
    Reply(FakeGrammars& all, std::optional<std::int32_t> after_token)
        : all_(all), after_token_(after_token), begun_(!after_token.has_value()) {}

    absl::StatusOr<bool> Prepared() const override { return all_.prepared; }
    void Accept(std::int32_t token) override {
      if (begun_) {
        accepted_.push_back(token);
      } else {
        begun_ = token == after_token_;
      }
    }
    TokenMask* mask() override { return begun_ ? this : nullptr; }
    absl::StatusOr<std::span<const std::uint32_t>> Await() override {
      ++all_.awaited;
      if (!all_.mask_status.ok()) return all_.mask_status;
      words_.assign((all_.vocabulary_size_ + 31) / 32, 0);
      for (std::uint32_t id = 0; id < all_.vocabulary_size_ && !all_.allow_nothing; ++id) {
        const bool allowed = Allows(accepted_, static_cast<std::int32_t>(id));
        words_[id / 32] |= static_cast<std::uint32_t>(allowed) << id % 32;
      }
      return words_;
    }

   private:
    FakeGrammars& all_;
    const std::optional<std::int32_t> after_token_;
    bool begun_;
    std::vector<std::int32_t> accepted_;
    std::vector<std::uint32_t> words_;
  };

  const std::uint32_t vocabulary_size_;
};

}  // namespace baleen::worker
