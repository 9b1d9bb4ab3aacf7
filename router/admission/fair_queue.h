// The order in which waiting requests of one model are started: strict priority bands; inside a
// band, the tenant that has been served least; inside a tenant, first come first served.
//
// "Served" is the virtual token counter of Sheng et al., "Fairness in Serving Large Language
// Models" (OSDI 2024): each tenant has a counter, in each band, that rises with the service it
// really gets, and the waiting tenant with the smallest one is next. A tenant that comes back from
// idle is lifted to the smallest counter of those that wait, so nobody saves credit up. Of tenants
// that wait all the time, no two counters are ever further apart than the larger of the cost of the
// longest prompt and that of the tokens that all running requests together can still get; service
// over any time differs by at most twice that.
//
// The head of the order waits for room, and nothing that is behind it passes it: so a large request
// waits for what is before it and no longer. What comes before it later is a higher band, or a
// tenant that has been served less, whose counter rises with each request that passes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "proto/contract/limits.h"

namespace baleen::router {

// What service costs, in prompt tokens computed.
struct ServiceCost {
  double prompt_token = 1.0;
  // Found in a cache: no arithmetic, but memory, and for a split request its transfer. Not 0, or a
  // tenant could pass others without end with prompts that are cached.
  double cached_token = 0.1;
  double reply_token = 2.0;

  double OfPrompt(std::uint32_t tokens, std::uint32_t cached_tokens) const {
    return prompt_token * (tokens - cached_tokens) + cached_token * cached_tokens;
  }
};

// One thread.
class FairQueue {
 public:
  struct Waiting {
    std::uint64_t number = 0;  // of the request
    std::uint64_t work = 0;    // prompt and longest reply, in tokens
    absl::Duration since;      // when it came; does not go back from one to the next
  };

 private:
  struct Entry {
    Waiting waiting;
    std::uint64_t order = 0;  // counts up
  };
  struct Band;
  // A tenant in a band.
  struct Account {
    Band* band = nullptr;
    const std::string* tenant = nullptr;
    double served = 0.0;
    std::uint32_t places = 0;  // waiting and running
    std::uint64_t work = 0;    // waiting
    std::list<Entry> waiting;
    std::size_t backlog_index = 0;  // in Band::backlog, while something waits
  };
  struct Band {
    std::unordered_map<std::string, Account> accounts;
    std::vector<Account*> backlog;  // have something waiting
    const Account* left_last = nullptr;
    std::uint64_t work = 0;
  };

 public:
  // What a request has in the queue from its coming to its end. Plain; Leave before it is dropped.
  class Place {
   public:
    bool waiting() const { return waits_; }
    // The request's tenant has been served.
    void Charge(double cost) { account_->served += cost; }

   private:
    friend class FairQueue;
    Account* account_ = nullptr;
    std::list<Entry>::iterator entry_;
    bool waits_ = false;
  };

  // `accounts_max`: tenants to remember in a band, besides those that have requests.
  explicit FairQueue(std::size_t accounts_max = 16'384) : accounts_max_(accounts_max) {}
  FairQueue(const FairQueue&) = delete;
  FairQueue& operator=(const FairQueue&) = delete;

  // A request comes, and waits. `priority`: the band, at most contract::kPriorityMax.
  Place Enter(std::string_view tenant, std::uint32_t priority, const Waiting& waiting);
  // It waits no more: it is started, or it will leave.
  void StopWaiting(Place& place);
  // It has ended.
  void Leave(Place& place);

  std::size_t size() const { return waiting_; }
  // Of all that wait.
  std::uint64_t work() const { return work_; }
  // The one to start next; null: none waits.
  const Waiting* Head() const;

  // Work that will be started before that of a waiting request: that of higher bands, of its own
  // tenant before it, and of each other tenant of its band as much as of its own.
  std::uint64_t WorkBefore(const Place& place) const;

  // Those that have waited since `since` or longer, oldest first in each tenant.
  std::vector<std::uint64_t> WaitingSince(absl::Duration since) const;

  // For tests: the counter of a tenant, 0 when it is not known.
  double Served(std::string_view tenant, std::uint32_t priority) const;

 private:
  void Lift(Account& account);
  void Forget(Band& band);

  const std::size_t accounts_max_;
  std::array<Band, contract::kPriorityMax + 1> bands_;
  std::size_t waiting_ = 0;
  std::uint64_t work_ = 0;
  std::uint64_t entered_ = 0;
};

}  // namespace baleen::router
