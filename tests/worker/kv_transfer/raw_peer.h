// A peer without manners: UCX and nothing else. It says what the test tells it to say, and makes
// progress only when the test wants it to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "observability/base/check.h"
#include "worker/kv_transfer/protocol/frames.h"
#include "worker/kv_transfer/ucx_worker.h"

namespace baleen::worker {

class RawPeer final : private UcxSink {
 public:
  RawPeer() {
    auto worker = UcxWorker::Create(*this);
    BALEEN_CHECK(worker.ok(), "UCX starts");
    worker_ = *std::move(worker);
  }

  const std::string& address() const { return worker_->address(); }
  void Progress() { worker_->Progress(); }

  void Say(const std::string& peer, const Frame& frame) { SayBytes(peer, EncodeFrame(frame)); }
  void SayBytes(const std::string& peer, std::string bytes) {
    worker_->SendFrame(peer, std::move(bytes));
  }
  void Send(const std::string& peer, const BlockHeader& header, std::span<const std::byte> block) {
    SendBehind(peer, EncodeFrame(header), block);
  }
  void SendBehind(const std::string& peer, std::string header, std::span<const std::byte> block) {
    worker_->SendBlock({.block = block, .peer = peer}, std::move(header), 0);
  }

  // Closes its connection by force.
  void Forget(const std::string& peer) { worker_->ClosePeer(peer); }

  // What it has heard.
  template <typename Kind>
  std::optional<Kind> Heard() const {
    for (const Frame& frame : frames_) {
      if (const auto* found = std::get_if<Kind>(&frame)) return *found;
    }
    return std::nullopt;
  }
  void ForgetFrames() { frames_.clear(); }
  int blocks_received() const { return blocks_received_; }
  int blocks_begun() const { return blocks_begun_; }
  int blocks_sent() const { return blocks_sent_; }

 private:
  void OnFrame(std::span<const std::byte> bytes) override {
    if (auto frame = DecodeFrame(bytes); frame.ok()) frames_.push_back(*std::move(frame));
  }
  std::optional<BlockToReceive> OnBlock(std::span<const std::byte> bytes,
                                        std::size_t length) override {
    const auto frame = DecodeFrame(bytes);
    if (!frame.ok() || !std::holds_alternative<BlockHeader>(*frame)) return std::nullopt;
    const auto& header = std::get<BlockHeader>(*frame);
    blocks_begun_++;
    return BlockToReceive{.header = header, .memory = memory_.emplace_back(length)};
  }
  void OnBlockReceived(const BlockToReceive&, const absl::Status& status) override {
    if (status.ok()) blocks_received_++;
  }
  void OnBlockSent(const BlockToSend&, const absl::Status&, std::uint64_t) override {
    blocks_sent_++;
  }
  void OnPeerLost(const std::string&, const absl::Status&) override {}

  std::list<std::vector<std::byte>> memory_;  // into which blocks are fetched
  std::vector<Frame> frames_;
  int blocks_received_ = 0;
  int blocks_begun_ = 0;
  int blocks_sent_ = 0;
  std::unique_ptr<UcxWorker> worker_;
};

}  // namespace baleen::worker
