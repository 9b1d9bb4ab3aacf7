#include "router/admission/fair_queue.h"

#include <algorithm>

#include "observability/base/check.h"

namespace baleen::router {
namespace {

// Less served first; of equals the one that has waited longer.
template <typename Account>
bool Before(const Account& a, const Account& b) {
  if (a.served != b.served) return a.served < b.served;
  return a.waiting.front().order < b.waiting.front().order;
}

}  // namespace

FairQueue::Place FairQueue::Enter(std::string_view tenant, std::uint32_t priority,
                                  const Waiting& waiting) {
  BALEEN_CHECK(priority <= contract::kPriorityMax, "priorities are validated");
  Band& band = bands_[priority];
  const auto [it, is_new] = band.accounts.try_emplace(std::string(tenant));
  Account& account = it->second;
  account.band = &band;
  account.tenant = &it->first;
  ++account.places;
  if (account.waiting.empty()) {
    Lift(account);
    account.backlog_index = band.backlog.size();
    band.backlog.push_back(&account);
  }
  Place place;
  place.account_ = &account;
  place.entry_ = account.waiting.insert(account.waiting.end(), {waiting, ++entered_});
  place.waits_ = true;
  account.work += waiting.work;
  band.work += waiting.work;
  work_ += waiting.work;
  ++waiting_;
  if (is_new && band.accounts.size() > 2 * accounts_max_) Forget(band);
  return place;
}

void FairQueue::Lift(Account& account) {
  const Band& band = *account.band;
  if (!band.backlog.empty()) {
    const auto least = std::ranges::min_element(band.backlog, {}, &Account::served);
    account.served = std::max(account.served, (*least)->served);
  } else if (band.left_last != nullptr) {
    account.served = std::max(account.served, band.left_last->served);
  }
}

void FairQueue::StopWaiting(Place& place) {
  BALEEN_CHECK(place.waits_, "a request waits once");
  Account& account = *place.account_;
  Band& band = *account.band;
  const std::uint64_t work = place.entry_->waiting.work;
  account.waiting.erase(place.entry_);
  place.waits_ = false;
  account.work -= work;
  band.work -= work;
  work_ -= work;
  --waiting_;
  if (!account.waiting.empty()) return;
  band.left_last = &account;
  band.backlog[account.backlog_index] = band.backlog.back();
  band.backlog[account.backlog_index]->backlog_index = account.backlog_index;
  band.backlog.pop_back();
}

void FairQueue::Leave(Place& place) {
  if (place.account_ == nullptr) return;
  if (place.waits_) StopWaiting(place);
  --place.account_->places;
  place.account_ = nullptr;
}

// The least served of those without requests go. One that comes back is lifted anyway, unless it
// has been served more than all that wait: that is what is forgotten last.
void FairQueue::Forget(Band& band) {
  std::vector<Account*> idle;
  for (auto& [tenant, account] : band.accounts) {
    if (account.places == 0 && &account != band.left_last) idle.push_back(&account);
  }
  if (idle.size() <= accounts_max_) return;
  const auto kept_from = idle.begin() + static_cast<std::ptrdiff_t>(idle.size() - accounts_max_);
  std::ranges::nth_element(idle, kept_from, {}, &Account::served);
  for (auto it = idle.begin(); it != kept_from; ++it) {
    band.accounts.erase(band.accounts.find(*(*it)->tenant));
  }
}

const FairQueue::Waiting* FairQueue::Head() const {
  for (auto band = bands_.rbegin(); band != bands_.rend(); ++band) {
    if (band->backlog.empty()) continue;
    const auto next = std::ranges::min_element(
        band->backlog, [](const Account* a, const Account* b) { return Before(*a, *b); });
    return &(*next)->waiting.front().waiting;
  }
  return nullptr;
}

std::uint64_t FairQueue::WorkBefore(const Place& place) const {
  BALEEN_CHECK(place.waits_, "the request waits");
  const Account& own = *place.account_;
  std::uint64_t before_in_tenant = 0;
  for (const Entry& entry : own.waiting) {
    if (&entry == &*place.entry_) break;
    before_in_tenant += entry.waiting.work;
  }
  std::uint64_t before = before_in_tenant;
  for (const Band* band = own.band + 1; band < bands_.data() + bands_.size(); ++band) {
    before += band->work;
  }
  const std::uint64_t with_it = before_in_tenant + place.entry_->waiting.work;
  for (const Account* other : own.band->backlog) {
    if (other != &own) before += std::min(other->work, with_it);
  }
  return before;
}

std::vector<std::uint64_t> FairQueue::WaitingSince(absl::Duration since) const {
  std::vector<std::uint64_t> numbers;
  for (const Band& band : bands_) {
    for (const Account* account : band.backlog) {
      for (const Entry& entry : account->waiting) {
        if (entry.waiting.since > since) break;
        numbers.push_back(entry.waiting.number);
      }
    }
  }
  return numbers;
}

double FairQueue::Served(std::string_view tenant, std::uint32_t priority) const {
  const Band& band = bands_[priority];
  const auto it = band.accounts.find(std::string(tenant));
  return it == band.accounts.end() ? 0.0 : it->second.served;
}

}  // namespace baleen::router
