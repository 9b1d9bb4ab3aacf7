#include "router/server/shard.h"

#include <utility>

#include "router/server/generation_call.h"

namespace baleen::router {

Shard::Shard(const ShardOptions& options, const ShardParts& parts,
             std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : options_(options),
      loop_(std::move(queue)),
      inbox_(options.inbox_tokens_max, [this] { loop_.Post([this] { TakeReplies(); }); }),
      context_{.parts = parts.server,
               .service = parts.service,
               .loop = loop_,
               .text_pool = parts.text_pool,
               .sink = inbox_,
               .request_wait_max = options.request_wait_max,
               .finish_wait_max = options.finish_wait_max,
               .next_number = [&calls = parts.calls] { return ++calls; },
               .accept = [this](Method method) { Accept(method); },
               .deliver_prompt =
                   [this](std::uint64_t number, absl::StatusOr<Prompt> prompt) {
                     const auto it = calls_.find(number);
                     if (it != calls_.end()) it->second->OnPrompt(std::move(prompt));
                   }} {}

Shard::~Shard() {
  if (closed_) return;
  loop_.Close();
  loop_.Run(options_.tick, [] {});
}

void Shard::Start() {
  thread_ = std::thread([this] {
    for (const Method method :
         {Method::kChat, Method::kGenerate, Method::kTokenize, Method::kListModels}) {
      Accept(method);
    }
    loop_.Run(options_.tick, [this] { Tick(); });
  });
}

void Shard::Stop() {
  loop_.Post([this] { stopping_ = true; });
}

void Shard::Accept(Method method) {
  if (stopping_) return;
  if (calls_.size() >= options_.calls_max) {
    not_accepting_.push_back(method);
    return;
  }
  std::unique_ptr<Call> call;
  if (method == Method::kChat || method == Method::kGenerate) {
    call = std::make_unique<GenerationCall>(context_, method);
  } else {
    call = std::make_unique<UnaryCall>(context_, method);
  }
  const std::uint64_t number = call->number();
  calls_.emplace(number, std::move(call));
}

void Shard::TakeReplies() {
  for (Reply& reply : inbox_.Take()) {
    const auto it = calls_.find(reply.id.number);
    if (it != calls_.end()) it->second->OnReply(std::move(reply));
  }
}

void Shard::Tick() {
  for (const auto& [number, call] : calls_) call->Tick();
  std::erase_if(calls_, [](const auto& entry) { return entry.second->over(); });
  for (const Method method : std::exchange(not_accepting_, {})) Accept(method);
  if (stopping_ && calls_.empty() && !closed_) {
    closed_ = true;
    loop_.Close();
  }
}

}  // namespace baleen::router
