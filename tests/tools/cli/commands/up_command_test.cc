// What `baleen up` says when the cluster is ready.
#include "tools/cli/commands/up_command.h"

#include <gtest/gtest.h>

namespace baleen::cli {
namespace {

RunningCluster SomeCluster() {
  return {{.spec = {.kind = ChildKind::kRouter, .name = "router"},
           .ready = {{"grpc", "h:1"}, {"workers", "h:2"}, {"metrics", "h:3"}},
           .pid = 10},
          {.spec = {.name = "prefill-0.0", .role = "prefill"},
           .ready = {{"worker", "prefill-0.0"}, {"metrics", "h:4"}},
           .pid = 11},
          {.spec = {.name = "decode-0.0", .role = "decode"},
           .ready = {{"worker", "decode-0.0"}, {"metrics", "h:5"}},
           .pid = 12}};
}

TEST(ReadyJson, IsStable) {
  EXPECT_EQ(ReadyJson(SomeCluster()),
            "{\"grpc\":\"h:1\",\"metrics\":[\"h:3\",\"h:4\",\"h:5\"],\"workers\":[{\"name\":"
            "\"prefill-0.0\",\"role\":\"prefill\",\"metrics\":\"h:4\",\"pid\":11},{\"name\":"
            "\"decode-0.0\",\"role\":\"decode\",\"metrics\":\"h:5\",\"pid\":12}],\"router\":{"
            "\"workers\":\"h:2\",\"metrics\":\"h:3\",\"pid\":10}}");
}

TEST(AddressRows, NamesEveryPage) {
  EXPECT_EQ(RenderTable(AddressRows(SomeCluster()), Style(false)),
            "  gRPC                    h:1\n"
            "  metrics of router       http://h:3/metrics\n"
            "  metrics of prefill-0.0  http://h:4/metrics\n"
            "  metrics of decode-0.0   http://h:5/metrics\n");
}

}  // namespace
}  // namespace baleen::cli
