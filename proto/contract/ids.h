// Identities that travel between router and worker: strong types, so that one is never taken for
// another.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace baleen::contract {

// Names a request for ever: the router's random number, and its count.
struct RequestId {
  std::uint64_t router = 0;
  std::uint64_t number = 0;
  auto operator<=>(const RequestId&) const = default;
};

// A request and the attempt at it. Frames of an older attempt than the newest known are dropped.
struct RequestKey {
  RequestId id;
  std::uint32_t attempt = 0;
  auto operator<=>(const RequestKey&) const = default;
};

// What clients and logs see, for example "req-5f3a9c0d11223344-17".
std::string ToString(const RequestId& id);

// Names one KV transfer on the data plane. Random; 0 means none.
struct TransferId {
  std::uint64_t value = 0;
  auto operator<=>(const TransferId&) const = default;
};

// A random number from the operating system, never 0: for router numbers, incarnations, transfers
// and unset seeds.
std::uint64_t RandomNonZero();

}  // namespace baleen::contract

template <>
struct std::hash<baleen::contract::RequestId> {
  std::size_t operator()(const baleen::contract::RequestId& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.router ^ (id.number * 0x9e3779b97f4a7c15ULL));
  }
};

template <>
struct std::hash<baleen::contract::RequestKey> {
  std::size_t operator()(const baleen::contract::RequestKey& key) const noexcept {
    return std::hash<baleen::contract::RequestId>{}(key.id) ^ (key.attempt * 0x85ebca6bULL);
  }
};

template <>
struct std::hash<baleen::contract::TransferId> {
  std::size_t operator()(const baleen::contract::TransferId& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value);
  }
};
