// What every implementation of the KvTransfer seam must do: a test program links conformance.cc and
// defines Fabrics().
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "observability/base/clock.h"
#include "worker/kv_transfer/kv_transfer.h"

namespace baleen::worker {

// Makes endpoints that can reach each other.
class Fabric {
 public:
  virtual ~Fabric() = default;
  // Leases run on `clock`; `wake` is passed on to the endpoint.
  virtual std::unique_ptr<KvTransfer> NewEndpoint(const TransferLimits& limits, const Clock& clock,
                                                  std::function<void()> wake) = 0;
};

struct FabricMaker {
  std::string name;
  std::function<std::unique_ptr<Fabric>()> make;
};

inline std::ostream& operator<<(std::ostream& out, const FabricMaker& maker) {
  return out << maker.name;
}

// The fabrics of this test program: each provides its own.
std::vector<FabricMaker> Fabrics();

inline std::string FabricName(const testing::TestParamInfo<FabricMaker>& info) {
  return info.param.name;
}

// One rank: its endpoint and what came out of it.
class Rank {
 public:
  explicit Rank(std::unique_ptr<KvTransfer> transfer)
      : transfer_(std::move(transfer)), address_(transfer_->LocalAddress()) {}

  KvTransfer& operator*() { return *transfer_; }
  KvTransfer* operator->() { return transfer_.get(); }
  const std::string& address() const { return address_; }

  void Collect();
  bool Ended(contract::TransferId id) const { return events_.contains(id.value); }
  // The only event of `id`.
  const TransferEvent& EventOf(contract::TransferId id) const;
  std::size_t events() const;
  // The process ends.
  void Destroy() { transfer_.reset(); }
  bool alive() const { return transfer_ != nullptr; }
  const std::map<std::uint64_t, std::vector<TransferEvent>>& all() const { return events_; }

 private:
  std::unique_ptr<KvTransfer> transfer_;
  const std::string address_;
  std::map<std::uint64_t, std::vector<TransferEvent>> events_;
};

// Memory for the blocks of one transfer.
class BlockMemory {
 public:
  // Filled with a pattern that depends on `seed`; 0 fills with zeros.
  BlockMemory(std::size_t blocks, std::size_t block_bytes, std::uint64_t seed);

  std::size_t blocks() const { return bytes_.size() / block_bytes_; }
  std::span<std::byte> Block(std::size_t number);
  std::vector<std::span<std::byte>> Blocks();
  void Fill(std::byte value);
  bool IsAll(std::byte value) const;
  bool operator==(const BlockMemory& other) const { return bytes_ == other.bytes_; }

 private:
  std::size_t block_bytes_;
  std::vector<std::byte> bytes_;
};

void ExpectFailed(const TransferEvent& event, absl::StatusCode code);

class KvTransferConformance : public testing::TestWithParam<FabricMaker> {
 protected:
  static constexpr std::size_t kBlockBytes = 40'960;

  void SetUp() override { fabric_ = GetParam().make(); }
  // Cancels what still runs; then every transfer that was begun has ended exactly once.
  void TearDown() override;

  Rank& NewRank() { return NewRank(Limits()); }
  Rank& NewRank(const TransferLimits& limits);
  static TransferLimits Limits();

  // As the seam's calls, which must succeed, keeping the books for TearDown.
  void Expect(Rank& rank, contract::TransferId id, BlockMemory& memory);
  void SendBlock(Rank& from, const Rank& to, contract::TransferId id, BlockMemory& memory,
                 std::uint32_t number);
  void SendClosing(Rank& from, const Rank& to, contract::TransferId id, std::uint32_t blocks_total,
                   std::string manifest = "manifest");
  void SendAll(Rank& from, const Rank& to, contract::TransferId id, BlockMemory& memory,
               std::uint32_t blocks, std::string manifest = "manifest");

  // Notes a transfer that was begun without them.
  void Begun(Rank& rank, contract::TransferId id) { begun_.insert({&rank, id.value}); }

  // Polls all ranks until `done`, at most half a minute.
  void Until(const std::function<bool()>& done);
  void UntilEnded(contract::TransferId id, Rank& a, Rank& b);
  // Until `rank`'s transfer has failed, with `code`.
  void UntilFailed(Rank& rank, contract::TransferId id, absl::StatusCode code);
  // Lets lease after lease pass: what is still on its way when the first one passes renews it.
  void UntilLeaseEnds(Rank& rank, contract::TransferId id);
  // Polls until `marker`, a transfer of its own that is begun after all that is under way from
  // `from` to `to`, has been handed over: what was sent before it has arrived then.
  void UntilArrived(Rank& from, Rank& to);
  contract::TransferId NextId() { return {++ids_}; }

  ManualClock clock_;
  std::unique_ptr<Fabric> fabric_;
  std::vector<std::unique_ptr<Rank>> ranks_;

 private:
  std::uint64_t ids_ = 0x1000;
  std::set<std::pair<Rank*, std::uint64_t>> begun_;
  std::mutex mutex_;
  std::condition_variable woken_;
  std::uint64_t wakes_ = 0;
};

}  // namespace baleen::worker
