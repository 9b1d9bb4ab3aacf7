#include "proto/contract/ids.h"

#include <fmt/format.h>

#include <random>

namespace baleen::contract {

std::string ToString(const RequestId& id) {
  return fmt::format("req-{:016x}-{}", id.router, id.number);
}

std::uint64_t RandomNonZero() {
  std::random_device device;
  std::uint64_t value = 0;
  while (value == 0) {
    value = (static_cast<std::uint64_t>(device()) << 32) | device();
  }
  return value;
}

}  // namespace baleen::contract
