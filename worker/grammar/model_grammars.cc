#include "worker/grammar/model_grammars.h"

#include <utility>

#include "fmt/format.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

class MatcherRules final : public TokenRules {
 public:
  explicit MatcherRules(std::unique_ptr<text::Matcher> matcher) : matcher_(std::move(matcher)) {}

  absl::Status Mask(std::span<std::uint32_t> out) override { return matcher_->Mask(out); }
  absl::Status Consume(std::int32_t token) override { return matcher_->Consume(token); }

 private:
  const std::unique_ptr<text::Matcher> matcher_;
};

}  // namespace

ModelGrammars::ModelGrammars(ModelGrammarsOptions options)
    : options_(std::move(options)), cache_(nullptr), loader_([this] { Load(); }) {}

ModelGrammars::~ModelGrammars() = default;

void ModelGrammars::Load() {
  absl::StatusOr<std::shared_ptr<const text::Vocabulary>> vocabulary =
      text::Vocabulary::Load(options_.model_directory, options_.vocabulary);
  if (vocabulary.ok()) {
    cache_ = std::make_unique<text::GrammarCache>(*std::move(vocabulary), options_.limits,
                                                  options_.cache);
  } else {
    cache_ = vocabulary.status();
    log::Warning("requests with a grammar will be refused",
                 {{"why", std::string(vocabulary.status().message())}});
  }
  loaded_.count_down();
}

absl::StatusOr<std::unique_ptr<TokenRules>> ModelGrammars::Compile(
    const text::GrammarSource& source) {
  loaded_.wait();
  if (!cache_.ok()) {
    return absl::FailedPreconditionError(
        fmt::format("this worker takes no grammars: {}", std::string(cache_.status().message())));
  }
  BALEEN_ASSIGN_OR_RETURN(std::shared_ptr<const text::Grammar> grammar, (*cache_)->Get(source));
  BALEEN_ASSIGN_OR_RETURN(std::unique_ptr<text::Matcher> matcher,
                          text::Matcher::Create(std::move(grammar)));
  return std::make_unique<MatcherRules>(std::move(matcher));
}

std::size_t ModelGrammars::mask_words() const {
  return (std::size_t{options_.vocabulary.size} + 31) / 32;
}

}  // namespace baleen::worker
