// The endpoints of the HTTP port: which there are, and who answers each.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "router/server/generation/generation_shard.h"
#include "router/server/http/handler.h"
#include "router/server/http/loop.h"

namespace baleen::router::openai {

// One for each loop; on its thread.
class ApiHandler final : public http::Handler {
 public:
  // All borrowed. `serving`: false while the router drains.
  ApiHandler(http::Loop& loop, const GenerationOptions& options, const GenerationShardParts& parts,
             const std::atomic<bool>& serving);

  // http::Handler
  std::optional<http::Response> Refuse(const http::RequestHead& head) override;
  std::unique_ptr<http::Activity> Handle(http::Request request, http::Exchange& exchange) override;
  http::Response MakeError(int code, std::string_view why) override;
  void OnTick() override { generations_.Tick(); }

  // For activities.
  GenerationShard& generations() { return generations_; }
  const ServerParts& parts() const { return generations_.parts(); }
  // For putting events together; valid until the next ones.
  std::string& scratch() { return scratch_; }

 private:
  http::Response Readiness() const;
  http::Response Models(std::string_view path) const;

  GenerationShard generations_;
  const std::atomic<bool>& serving_;
  const absl::Time started_;
  std::string scratch_;
};

}  // namespace baleen::router::openai
