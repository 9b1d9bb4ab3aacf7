// What `baleen up` says when the cluster is ready.
#include "tools/cli/commands/up_command.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace baleen::cli {
namespace {

RunningCluster SomeCluster() {
  return {{.spec = {.kind = ChildKind::kRouter, .name = "router"},
           .ready = {{"grpc", "h:1"}, {"http", "h:9"}, {"workers", "h:2"}, {"metrics", "h:3"}},
           .pid = 10},
          {.spec = {.name = "prefill-0.0", .role = "prefill"},
           .ready = {{"worker", "prefill-0.0"}, {"metrics", "h:4"}},
           .pid = 11},
          {.spec = {.name = "decode-0.0", .role = "decode"},
           .ready = {{"worker", "decode-0.0"}, {"metrics", "h:5"}},
           .pid = 12}};
}

RunningCluster ClusterOfGroups() {
  ClusterSpec spec{.model_directory = "m", .mixed = {1, 2}};
  spec.group.meeting_point = "unix-abstract:b";
  RunningCluster cluster;
  for (const ChildSpec& child : ChildrenOf(spec)) {
    const bool router = child.kind == ChildKind::kRouter;
    cluster.push_back({.spec = child,
                       .ready = {{router ? "grpc" : "worker", "h:1"},
                                 {"http", "h:9"},
                                 {"workers", "h:2"},
                                 {"metrics", fmt::format("h:{}", 3 + cluster.size())}},
                       .pid = static_cast<pid_t>(10 + cluster.size())});
  }
  return cluster;
}

TEST(ReadyJson, NamesGroupsAndTheirLeaders) {
  EXPECT_EQ(
      ReadyJson(ClusterOfGroups()),
      R"({"grpc":"h:1","http":"h:9","metrics":["h:3","h:4","h:5"],"workers":[{"name":"mixed-0.0","role":)"
      R"("mixed","metrics":"h:4","pid":11},{"name":"mixed-0.1","role":"mixed","metrics":"h:5")"
      R"(,"pid":12}],"groups":[{"name":"mixed-0","role":"mixed","ranks":2,"leader":)"
      R"("unix-abstract:b-mixed-0"}],"router":{"workers":"h:2","metrics":"h:3","pid":10}})");
}

TEST(AddressRows, NamesTheLeadersOfGroups) {
  EXPECT_EQ(RenderTable(AddressRows(ClusterOfGroups(), false), Style(false)),
            "  gRPC                  h:1\n"
            "  OpenAI API            http://h:9/v1\n"
            "  leader of mixed-0     unix-abstract:b-mixed-0, 2 ranks\n"
            "  metrics of router     http://h:3/metrics\n"
            "  metrics of mixed-0.0  http://h:4/metrics\n"
            "  metrics of mixed-0.1  http://h:5/metrics\n");
}

TEST(ReadyJson, IsStable) {
  EXPECT_EQ(ReadyJson(SomeCluster()),
            "{\"grpc\":\"h:1\",\"http\":\"h:9\",\"metrics\":[\"h:3\",\"h:4\",\"h:5\"],\"workers\":["
            "{\"name\":"
            "\"prefill-0.0\",\"role\":\"prefill\",\"metrics\":\"h:4\",\"pid\":11},{\"name\":"
            "\"decode-0.0\",\"role\":\"decode\",\"metrics\":\"h:5\",\"pid\":12}],\"groups\":[{"
            "\"name\":\"prefill-0\",\"role\":\"prefill\",\"ranks\":1,\"leader\":\"\"},{\"name\":"
            "\"decode-0\",\"role\":\"decode\",\"ranks\":1,\"leader\":\"\"}],\"router\":{"
            "\"workers\":\"h:2\",\"metrics\":\"h:3\",\"pid\":10}}");
}

TEST(AddressRows, NamesEveryPage) {
  EXPECT_EQ(RenderTable(AddressRows(SomeCluster(), false), Style(false)),
            "  gRPC                    h:1\n"
            "  OpenAI API              http://h:9/v1\n"
            "  metrics of router       http://h:3/metrics\n"
            "  metrics of prefill-0.0  http://h:4/metrics\n"
            "  metrics of decode-0.0   http://h:5/metrics\n");
}

}  // namespace
}  // namespace baleen::cli
