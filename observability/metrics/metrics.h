// Every metric of both processes, declared once, with its unit and help text. docs/metrics.md lists
// them.
//
// Handles are cheap to copy, thread-safe, and live as long as the Registry.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace baleen::metrics {

class Counter {
 public:
  explicit Counter(prometheus::Counter& counter) : counter_(&counter) {}
  void Add(double amount = 1.0);  // amount >= 0
  double Value() const;

 private:
  prometheus::Counter* counter_;
};

class Gauge {
 public:
  explicit Gauge(prometheus::Gauge& gauge) : gauge_(&gauge) {}
  void Set(double value);
  void Add(double amount);
  double Value() const;

 private:
  prometheus::Gauge* gauge_;
};

class Histogram {
 public:
  explicit Histogram(prometheus::Histogram& histogram) : histogram_(&histogram) {}
  void Observe(double value);

 private:
  prometheus::Histogram* histogram_;
};

// Owns the metrics of one process.
class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The page in Prometheus text format.
  std::string Text() const;

  std::shared_ptr<prometheus::Registry> shared() const { return registry_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

// Identity in `baleen_build_info`, constant 1.
struct BuildInfo {
  std::string_view version;
  std::string_view component;  // "router" or "worker"
};

// Outcomes of a request at the router: the label `outcome` of baleen_router_requests_total.
// "finished" or the name of a contract::Reason; any other name counts as "internal", so the label
// set stays bounded.
class RouterMetrics {
 public:
  RouterMetrics(Registry& registry, const BuildInfo& build);

  Counter RequestsTotal(std::string_view outcome) const;

  Counter prompt_tokens_total;
  Counter completion_tokens_total;
  Histogram time_to_first_token_seconds;
  Histogram inter_token_latency_seconds;
  Histogram request_seconds;
  Gauge requests_running;
  Gauge requests_waiting;
  Gauge workers_attached_prefill;
  Gauge workers_attached_decode;
  Gauge workers_attached_mixed;
  Counter stale_frames_total;  // frames of unknown requests or older attempts, dropped

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

class WorkerMetrics {
 public:
  WorkerMetrics(Registry& registry, const BuildInfo& build);

  Counter RequestsTotal(std::string_view outcome) const;

  Counter prompt_tokens_total;
  Counter generated_tokens_total;
  Gauge sequences_running;
  Gauge sequences_waiting;
  Gauge kv_blocks_used;
  Gauge kv_blocks_total;
  Gauge kv_blocks_cached;
  Counter prefix_cache_queried_tokens_total;
  Counter prefix_cache_hit_tokens_total;
  Counter prefix_cache_evicted_blocks_total;
  Counter kv_transfer_sent_bytes_total;
  Counter kv_transfer_received_bytes_total;
  Histogram kv_transfer_seconds;
  Counter kv_transfer_failures_total;
  Histogram step_seconds;
  Counter steps_total;
  Gauge routers_attached;
  Counter stale_frames_total;  // frames of older attempts or other routers, dropped
  Gauge checkpoint_bytes;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

}  // namespace baleen::metrics
