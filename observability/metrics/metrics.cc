#include "observability/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>

namespace baleen::metrics {
namespace {

using Labels = prometheus::Labels;

// Prefill of a long prompt takes seconds, one of a few tokens milliseconds.
const prometheus::Histogram::BucketBoundaries kFirstTokenBuckets = {
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80};
// An objective of 20 to 100 ms sits in the middle.
const prometheus::Histogram::BucketBoundaries kTokenBuckets = {
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5};
// A reasoning model thinks for minutes.
const prometheus::Histogram::BucketBoundaries kRequestBuckets = {
    0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280};
const prometheus::Histogram::BucketBoundaries kTransferBuckets = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

// "finished" and the names of contract::Reason (observability knows no proto; a test compares the
// two lists).
constexpr std::array<std::string_view, 16> kOutcomes = {
    "finished",        "invalid_request",   "prompt_too_long", "model_not_found",
    "unauthenticated", "permission_denied", "rate_limited",    "queue_full",
    "no_worker",       "worker_lost",       "transfer_failed", "deadline_exceeded",
    "cancelled",       "draining",          "numeric_fault",   "internal"};

prometheus::Counter& MakeCounter(prometheus::Registry& registry, const char* name, const char* help,
                                 const Labels& labels = {}) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& MakeGauge(prometheus::Registry& registry, const char* name, const char* help,
                             const Labels& labels = {}) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Histogram& MakeHistogram(prometheus::Registry& registry, const char* name,
                                     const char* help,
                                     const prometheus::Histogram::BucketBoundaries& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

prometheus::Counter& RequestCounter(prometheus::Registry& registry, const char* name,
                                    std::string_view outcome) {
  const bool known = std::find(kOutcomes.begin(), kOutcomes.end(), outcome) != kOutcomes.end();
  return MakeCounter(registry, name, "Requests ended, by outcome.",
                     {{"outcome", std::string(known ? outcome : "internal")}});
}

constexpr char kRouterRequests[] = "baleen_router_requests_total";
constexpr char kWorkerRequests[] = "baleen_worker_requests_total";
constexpr char kWorkersAttached[] = "baleen_router_workers_attached";
constexpr char kWorkersAttachedHelp[] = "Workers attached and within their lease, by role.";

void DeclareBuildInfo(prometheus::Registry& registry, const BuildInfo& build) {
  MakeGauge(registry, "baleen_build_info", "Version of this process; constant 1.",
            {{"version", std::string(build.version)}, {"component", std::string(build.component)}})
      .Set(1);
}

// All series exist from the start, so that rates and alerts see zeros, not gaps.
void DeclareOutcomes(prometheus::Registry& registry, const char* name) {
  for (const std::string_view outcome : kOutcomes) RequestCounter(registry, name, outcome);
}

}  // namespace

void Counter::Add(double amount) { counter_->Increment(amount); }
double Counter::Value() const { return counter_->Value(); }
void Gauge::Set(double value) { gauge_->Set(value); }
void Gauge::Add(double amount) { gauge_->Increment(amount); }
double Gauge::Value() const { return gauge_->Value(); }
void Histogram::Observe(double value) { histogram_->Observe(value); }

Registry::Registry() : registry_(std::make_shared<prometheus::Registry>()) {}
Registry::~Registry() = default;

std::string Registry::Text() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

RouterMetrics::RouterMetrics(Registry& registry, const BuildInfo& build)
    : prompt_tokens_total(MakeCounter(*registry.shared(), "baleen_router_prompt_tokens_total",
                                      "Prompt tokens of accepted requests.")),
      completion_tokens_total(MakeCounter(*registry.shared(),
                                          "baleen_router_completion_tokens_total",
                                          "Tokens delivered to clients.")),
      time_to_first_token_seconds(MakeHistogram(
          *registry.shared(), "baleen_router_time_to_first_token_seconds",
          "From accepting a request to its first token, in seconds.", kFirstTokenBuckets)),
      inter_token_latency_seconds(
          MakeHistogram(*registry.shared(), "baleen_router_inter_token_latency_seconds",
                        "Between two tokens of one request, in seconds.", kTokenBuckets)),
      request_seconds(MakeHistogram(*registry.shared(), "baleen_router_request_seconds",
                                    "From accepting a request to its end, in seconds.",
                                    kRequestBuckets)),
      requests_running(MakeGauge(*registry.shared(), "baleen_router_requests_running",
                                 "Requests that are on workers now.")),
      requests_waiting(MakeGauge(*registry.shared(), "baleen_router_requests_waiting",
                                 "Requests that wait for admission or text work now.")),
      workers_attached_prefill(MakeGauge(*registry.shared(), kWorkersAttached, kWorkersAttachedHelp,
                                         {{"role", "prefill"}})),
      workers_attached_decode(MakeGauge(*registry.shared(), kWorkersAttached, kWorkersAttachedHelp,
                                        {{"role", "decode"}})),
      workers_attached_mixed(MakeGauge(*registry.shared(), kWorkersAttached, kWorkersAttachedHelp,
                                       {{"role", "mixed"}})),
      stale_frames_total(
          MakeCounter(*registry.shared(), "baleen_router_stale_frames_total",
                      "Worker frames of unknown requests or older attempts, dropped.")),
      registry_(registry.shared()) {
  DeclareBuildInfo(*registry_, build);
  DeclareOutcomes(*registry_, kRouterRequests);
}

Counter RouterMetrics::RequestsTotal(std::string_view outcome) const {
  return Counter(RequestCounter(*registry_, kRouterRequests, outcome));
}

WorkerMetrics::WorkerMetrics(Registry& registry, const BuildInfo& build)
    : prompt_tokens_total(MakeCounter(*registry.shared(), "baleen_worker_prompt_tokens_total",
                                      "Prompt tokens computed.")),
      generated_tokens_total(MakeCounter(*registry.shared(), "baleen_worker_generated_tokens_total",
                                         "Tokens sampled.")),
      sequences_running(MakeGauge(*registry.shared(), "baleen_worker_sequences_running",
                                  "Sequences that compute, or hand their KV over, now.")),
      sequences_waiting(MakeGauge(*registry.shared(), "baleen_worker_sequences_waiting",
                                  "Sequences that wait for KV blocks or for KV to arrive.")),
      kv_blocks_used(MakeGauge(*registry.shared(), "baleen_worker_kv_blocks_used",
                               "KV blocks of 64 tokens that are held now.")),
      kv_blocks_total(MakeGauge(*registry.shared(), "baleen_worker_kv_blocks_total",
                                "KV blocks of 64 tokens that this rank has.")),
      kv_blocks_cached(MakeGauge(*registry.shared(), "baleen_worker_kv_blocks_cached",
                                 "Free KV blocks whose content is kept for prompts that begin "
                                 "alike, now.")),
      prefix_cache_queried_tokens_total(
          MakeCounter(*registry.shared(), "baleen_worker_prefix_cache_queried_tokens_total",
                      "Prompt tokens of admitted requests that were looked up in the cache.")),
      prefix_cache_hit_tokens_total(MakeCounter(*registry.shared(),
                                                "baleen_worker_prefix_cache_hit_tokens_total",
                                                "Prompt tokens whose KV was found in the cache.")),
      prefix_cache_evicted_blocks_total(
          MakeCounter(*registry.shared(), "baleen_worker_prefix_cache_evicted_blocks_total",
                      "Cached KV blocks that made room for others.")),
      kv_transfer_sent_bytes_total(
          MakeCounter(*registry.shared(), "baleen_worker_kv_transfer_sent_bytes_total",
                      "KV bytes sent to decode ranks and verified there.")),
      kv_transfer_received_bytes_total(
          MakeCounter(*registry.shared(), "baleen_worker_kv_transfer_received_bytes_total",
                      "KV bytes received from prefill ranks and verified.")),
      kv_transfer_seconds(MakeHistogram(*registry.shared(), "baleen_worker_kv_transfer_seconds",
                                        "From opening a transfer to its verified end, in seconds.",
                                        kTransferBuckets)),
      kv_transfer_failures_total(
          MakeCounter(*registry.shared(), "baleen_worker_kv_transfer_failures_total",
                      "Transfers that ended without verified KV, but for those that a rank gave up "
                      "because its request had ended.")),
      step_seconds(MakeHistogram(*registry.shared(), "baleen_worker_step_seconds",
                                 "Duration of one engine step, in seconds.", kTokenBuckets)),
      steps_total(MakeCounter(*registry.shared(), "baleen_worker_steps_total",
                              "Engine steps that computed something.")),
      routers_attached(MakeGauge(*registry.shared(), "baleen_worker_routers_attached",
                                 "Routers with a live Attach stream.")),
      stale_frames_total(
          MakeCounter(*registry.shared(), "baleen_worker_stale_frames_total",
                      "Router frames of older attempts or of other routers' requests, dropped.")),
      checkpoint_bytes(MakeGauge(*registry.shared(), "baleen_worker_checkpoint_bytes",
                                 "Bytes of weights mapped from the checkpoint.")),
      registry_(registry.shared()) {
  DeclareBuildInfo(*registry_, build);
  DeclareOutcomes(*registry_, kWorkerRequests);
}

Counter WorkerMetrics::RequestsTotal(std::string_view outcome) const {
  return Counter(RequestCounter(*registry_, kWorkerRequests, outcome));
}

}  // namespace baleen::metrics
