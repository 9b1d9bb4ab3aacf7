// What every implementation of the AllToAll seam must do: a test program links
// all_to_all_conformance.cc and defines Groups().
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

// Endpoints that can reach each other.
class TestGroup {
 public:
  virtual ~TestGroup() = default;
  // The endpoint of `rank`; called on its thread, once.
  virtual std::unique_ptr<GroupEndpoint> Join(std::int32_t rank) = 0;
};

struct GroupMaker {
  std::string name;
  std::function<std::unique_ptr<TestGroup>(const AllToAllShape&)> make;
};

inline std::ostream& operator<<(std::ostream& out, const GroupMaker& maker) {
  return out << maker.name;
}

// The implementations of this test program: each provides its own.
std::vector<GroupMaker> Groups();

}  // namespace baleen::worker
