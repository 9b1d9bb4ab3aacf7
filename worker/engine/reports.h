// Collects what a step has to say, router by router, and counts it.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "observability/metrics/metrics.h"
#include "worker/engine/messages.h"

namespace baleen::worker {

class Reports {
 public:
  explicit Reports(const metrics::WorkerMetrics& metrics) : metrics_(metrics) {}

  void AddPromptLogprobs(LinkId link, PromptLogprobsOutput output);
  void AddToken(LinkId link, TokenOutput token);
  // Ended frames follow all tokens of their request; each is counted by outcome.
  void AddEnded(LinkId link, EndedOutput ended);
  // A request that ends without a word, because its link is gone.
  void CountLost();
  // What was still to be said on a link that is gone.
  void Forget(LinkId link) { by_link_.erase(link); }

  // Hands everything to `sink`, with `step` and `load` in each report.
  void Deliver(std::uint64_t step, const LoadReport& load, OutputSink& sink);

 private:
  metrics::WorkerMetrics metrics_;
  std::map<LinkId, StepReport> by_link_;
};

}  // namespace baleen::worker
