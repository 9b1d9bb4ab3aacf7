#include "tests/fakes/fake_worker.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "proto/contract/limits.h"

namespace baleen::fakes {
namespace {

// Longer than anything that works takes, also under sanitizers on a busy machine.
constexpr std::chrono::seconds kPatience{30};
constexpr std::chrono::milliseconds kBeat{100};
constexpr std::uint64_t kKvBytes = 4096;

v1::Hello MakeHello(const FakeWorkerOptions& options) {
  v1::Hello hello;
  hello.set_protocol_version(contract::kProtocolVersion);
  hello.set_worker(options.name);
  hello.set_incarnation(options.incarnation);
  hello.set_role(options.role);
  hello.set_kv_blocks_total(options.kv_blocks_total);
  hello.set_sequences_max(options.sequences_max);
  hello.set_step_tokens_max(512);
  hello.set_data_plane_address("fake");
  v1::ModelIdentity& model = *hello.mutable_model();
  model.set_name("nano");
  model.set_digest(std::string(64, 'f'));
  model.set_context_tokens(4096);
  model.set_vocabulary_size(512);
  model.add_eos_token_ids(1);
  model.set_kv_block_bytes(1024);
  model.set_arithmetic("fake-1");
  if (options.change_hello) options.change_hello(hello);
  return hello;
}

}  // namespace

void FakeDataPlane::Expect(std::uint64_t transfer, const void* owner,
                           std::function<void()> arrived) {
  const std::lock_guard lock(mutex_);
  if (complete_.contains(transfer)) {
    arrived();
  } else {
    expected_[transfer] = {owner, std::move(arrived)};
  }
}

void FakeDataPlane::Complete(std::uint64_t transfer) {
  const std::lock_guard lock(mutex_);
  complete_.insert(transfer);
  if (const auto found = expected_.extract(transfer)) found.mapped().arrived();
}

void FakeDataPlane::Forget(const void* owner) {
  const std::lock_guard lock(mutex_);
  std::erase_if(expected_, [owner](const auto& entry) { return entry.second.owner == owner; });
}

FakeWorker::FakeWorker(FakeWorkerOptions options, FakeDataPlane& plane)
    : options_(std::move(options)), plane_(plane) {
  stub_ =
      v1::Worker::NewStub(grpc::CreateChannel(options_.router, grpc::InsecureChannelCredentials()));
  stream_ = stub_->Attach(&context_);
  v1::WorkerMessage hello;
  *hello.mutable_hello() = MakeHello(options_);
  Send(hello);
  reader_ = std::thread([this] { Run(); });
  if (options_.heartbeats) heart_ = std::thread([this] { Beat(); });
}

FakeWorker::~FakeWorker() {
  Kill();
  reader_.join();
  plane_.Forget(this);
  if (heart_.joinable()) heart_.join();
}

void FakeWorker::Run() {
  v1::RouterMessage message;
  while (stream_->Read(&message)) Take(message);
  const grpc::Status status = stream_->Finish();
  const std::lock_guard lock(mutex_);
  writable_ = false;
  ended_ = true;
  end_ = status;
  changed_.notify_all();
}

void FakeWorker::Beat() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kBeat, [this] { return ended_; })) {
    v1::WorkerMessage message;
    message.mutable_load()->set_sequences_running(static_cast<std::uint32_t>(legs_.size()));
    if (welcomed_) Write(message);
  }
}

bool FakeWorker::WaitWelcome() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [this] { return welcomed_ || ended_; });
  return welcomed_ && !ended_;
}

grpc::Status FakeWorker::WaitEnd() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kPatience, [this] { return ended_; })) {
    return {grpc::StatusCode::DEADLINE_EXCEEDED, "the stream has not ended"};
  }
  return end_;
}

bool FakeWorker::WaitFor(const std::function<bool(const State&)>& holds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this, &holds] { return holds(state_); });
}

FakeWorker::State FakeWorker::state() {
  const std::lock_guard lock(mutex_);
  return state_;
}

void FakeWorker::Resume() {
  const std::lock_guard lock(mutex_);
  holding_ = false;
  Advance();
}

void FakeWorker::Kill() {
  {
    const std::lock_guard lock(mutex_);
    writable_ = false;
  }
  context_.TryCancel();
}

void FakeWorker::Send(const v1::WorkerMessage& message) {
  const std::lock_guard lock(mutex_);
  Write(message);
}

void FakeWorker::Write(const v1::WorkerMessage& message) {
  if (writable_) writable_ = stream_->Write(message);
}

void FakeWorker::Take(const v1::RouterMessage& message) {
  {
    const std::lock_guard lock(mutex_);
    if (message.has_welcome()) welcomed_ = true;
    if (message.has_start()) TakeStart(message.start());
    if (message.has_cancel()) {
      state_.cancels.push_back(message.cancel().key());
      Withdraw(message.cancel().key());
    }
    if (message.has_release()) {
      state_.releases.push_back(message.release().key());
      Withdraw(message.release().key());
    }
    Advance();
  }
  if (!message.has_start() || message.start().leg() != v1::LEG_DECODE) return;
  const std::uint64_t number = message.start().key().number();
  plane_.Expect(message.start().transfer(), this, [this, number] {
    const std::lock_guard lock(mutex_);
    if (const auto it = legs_.find(number); it != legs_.end()) it->second.has_kv = true;
    Advance();
  });
}

void FakeWorker::TakeStart(const v1::Start& start) {
  state_.starts.push_back(start);
  legs_[start.key().number()] = {.start = start};
}

void FakeWorker::Withdraw(const v1::RequestKey& key) {
  const auto it = legs_.find(key.number());
  if (it == legs_.end()) return;
  EmitEnded(it->second, v1::END_REASON_CANCELLED, 0);
  legs_.erase(it);
}

void FakeWorker::Advance() {
  for (auto it = legs_.begin(); it != legs_.end();) {
    it = AdvanceLeg(it->second) ? legs_.erase(it) : std::next(it);
  }
  state_.legs = legs_.size();
  changed_.notify_all();
}

std::uint32_t FakeWorker::ReplyTokens(const v1::Start& start) const {
  const auto natural = static_cast<std::uint32_t>(options_.reply.size());
  return natural == 0 ? start.tokens_max() : std::min(natural, start.tokens_max());
}

bool FakeWorker::AdvanceLeg(FakeLeg& leg) {
  const v1::Start& start = leg.start;
  const bool prefill = start.leg() == v1::LEG_PREFILL;
  const bool decode = start.leg() == v1::LEG_DECODE;
  if (decode && !leg.has_kv) return false;
  if (start.has_prompt_logprobs() && !leg.prompt_told) EmitPromptLogprobs(leg);
  leg.prompt_told = true;
  const std::uint32_t total = ReplyTokens(start);
  const std::uint32_t first = decode ? 1 : 0;
  const std::uint32_t last = prefill ? 1 : total;
  while (first + leg.emitted < last) {
    if (holding_ && first + leg.emitted >= options_.hold_after) return false;
    Emit(leg, first + leg.emitted);
  }
  if (prefill && total > 1) {
    EmitEnded(leg, v1::END_REASON_HANDED_OVER, kKvBytes);
    plane_.Complete(start.transfer());
    return true;
  }
  const bool stop = !options_.reply.empty() && total == options_.reply.size();
  EmitEnded(leg, stop ? v1::END_REASON_STOP : v1::END_REASON_LENGTH, decode ? kKvBytes : 0);
  return true;
}

void FakeWorker::EmitPromptLogprobs(const FakeLeg& leg) {
  const int size = leg.start.prompt_token_ids_size();
  constexpr int kChunk = 100;
  for (int first = 0; first < size; first += kChunk) {
    v1::WorkerMessage message;
    v1::PromptLogprobs& part = *message.mutable_prompt_logprobs();
    *part.mutable_key() = leg.start.key();
    part.set_first(static_cast<std::uint32_t>(first));
    for (int i = first; i < std::min(first + kChunk, size); ++i) {
      v1::Logprobs& entry = *part.add_logprobs();
      if (i == 0) continue;
      entry.set_present(true);
      entry.set_sampled(static_cast<float>(-i) / 100.0f);
      for (std::uint32_t top = 0; top < leg.start.prompt_logprobs(); ++top) {
        entry.add_top_token_ids(static_cast<std::int32_t>(100 + top));
        entry.add_top_logprobs(-1.0f - static_cast<float>(top));
      }
    }
    Write(message);
  }
}

void FakeWorker::Emit(FakeLeg& leg, std::uint32_t sequence) {
  v1::WorkerMessage message;
  v1::StepOutput& step = *message.mutable_step();
  step.set_step(++step_);
  *step.add_keys() = leg.start.key();
  step.add_sequence(sequence);
  step.add_token_ids(options_.reply.empty() ? options_.filler : options_.reply[sequence]);
  if (leg.start.sampling().logprobs() >= 0) {
    v1::Logprobs& logprobs = *step.add_logprobs();
    logprobs.set_present(true);
    logprobs.set_sampled(-0.5f);
    for (int i = 0; i < leg.start.sampling().logprobs(); ++i) {
      logprobs.add_top_token_ids(100 + i);
      logprobs.add_top_logprobs(-1.0f - static_cast<float>(i));
    }
  }
  step.mutable_load()->set_sequences_running(static_cast<std::uint32_t>(legs_.size()));
  ++leg.emitted;
  Write(message);
}

void FakeWorker::EmitEnded(const FakeLeg& leg, v1::EndReason reason, std::uint64_t kv_bytes) {
  v1::WorkerMessage load;  // without it
  load.mutable_load()->set_sequences_running(static_cast<std::uint32_t>(legs_.size() - 1));
  Write(load);
  v1::WorkerMessage message;
  v1::Ended& ended = *message.mutable_ended();
  *ended.mutable_key() = leg.start.key();
  ended.set_reason(reason);
  ended.set_tokens(leg.emitted);
  ended.set_kv_transfer_bytes(kv_bytes);
  if (leg.start.leg() != v1::LEG_DECODE) ended.set_cached_tokens(options_.cached_tokens);
  Write(message);
}

}  // namespace baleen::fakes
