#include "router/server/shard.h"

#include <utility>

#include "router/server/generation_call.h"

namespace baleen::router {

Shard::Shard(const ShardOptions& options, const ShardParts& parts,
             std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : options_(options),
      loop_(std::move(queue)),
      generations_(options.generation, parts.generation,
                   [this](absl::AnyInvocable<void()> work) { loop_.Post(std::move(work)); }),
      context_{.generations = generations_,
               .service = parts.service,
               .loop = loop_,
               .write_wait_max = options.write_wait_max,
               .accept = [this](Method method) { Accept(method); }} {}

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
  if (method == Method::kChat || method == Method::kGenerate) {
    calls_.push_back(std::make_unique<GenerationCall>(context_, method));
  } else {
    calls_.push_back(std::make_unique<UnaryCall>(context_, method));
  }
}

void Shard::Tick() {
  generations_.Tick();
  for (const auto& call : calls_) call->Tick();
  std::erase_if(calls_, [](const auto& call) { return call->over(); });
  for (const Method method : std::exchange(not_accepting_, {})) Accept(method);
  if (stopping_ && calls_.empty() && !closed_) {
    closed_ = true;
    loop_.Close();
  }
}

}  // namespace baleen::router
