#include "worker/engine/reports.h"

#include <string_view>

#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

std::string_view OutcomeOf(const EndedOutput& ended) {
  switch (ended.reason) {
    case EndReason::kStop:
    case EndReason::kLength:
    case EndReason::kHandedOver:
      return "finished";
    case EndReason::kCancelled:
      return contract::RowOf(contract::Reason::kCancelled).name;
    case EndReason::kError:
      break;
  }
  const auto reason = contract::ReasonOf(ended.status);
  return contract::RowOf(reason.value_or(contract::Reason::kInternal)).name;
}

}  // namespace

void Reports::AddPromptLogprobs(LinkId link, PromptLogprobsOutput output) {
  by_link_[link].prompt_logprobs.push_back(std::move(output));
}

void Reports::AddToken(LinkId link, TokenOutput token) {
  metrics_.generated_tokens_total.Add();
  by_link_[link].tokens.push_back(std::move(token));
}

void Reports::AddEnded(LinkId link, EndedOutput ended) {
  metrics_.RequestsTotal(OutcomeOf(ended)).Add();
  by_link_[link].ended.push_back(std::move(ended));
}

void Reports::CountLost() {
  metrics_.RequestsTotal(contract::RowOf(contract::Reason::kCancelled).name).Add();
}

void Reports::Deliver(std::uint64_t step, const LoadReport& load, OutputSink& sink) {
  for (auto& [link, report] : by_link_) {
    report.step = step;
    report.load = load;
    sink.Deliver(link, std::move(report));
  }
  by_link_.clear();
}

}  // namespace baleen::worker
