// What standard tools ask of the client port: server reflection (grpcurl) and grpc.health.v1
// (probes). Their messages are small enough to be written by hand, which saves a dependency on
// their generated code.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "router/server/call.h"
#include "tests/router/server/router_fixture.h"

namespace baleen::router {
namespace {

using ::testing::HasSubstr;

class StandardServices : public RouterTest {
 protected:
  struct Answer {
    grpc::Status status;
    std::string bytes;  // of the first message
  };

  // One message there, one back, then half-close.
  Answer Call(const std::string& method, const std::string& message) {
    grpc::GenericStub stub(channel_);
    grpc::CompletionQueue queue;
    const auto context = Context();
    const auto call = stub.PrepareCall(context.get(), method, &queue);
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    Answer answer;
    call->StartCall(nullptr);
    wait();
    call->Write(ToBuffer(message), nullptr);
    wait();
    grpc::ByteBuffer buffer;
    call->Read(&buffer, nullptr);
    if (wait()) {
      grpc::Slice slice;
      EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
      answer.bytes.assign(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    call->WritesDone(nullptr);
    wait();
    call->Finish(&answer.status, nullptr);
    wait();
    queue.Shutdown();
    wait();
    return answer;
  }

  // HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1}: 1 SERVING, 2 NOT_SERVING.
  Answer Health(const std::string& service) {
    std::string request;
    if (!service.empty()) {
      request = "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
    }
    return Call("/grpc.health.v1.Health/Check", request);
  }
};

TEST_F(StandardServices, ReflectionListsTheServices) {
  // ServerReflectionRequest{list_services = 7: "*"}
  const Answer answer =
      Call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_THAT(answer.bytes, HasSubstr("baleen.v1.Inference"));
  EXPECT_THAT(answer.bytes, HasSubstr("grpc.health.v1.Health"));
  EXPECT_THAT(answer.bytes, ::testing::Not(HasSubstr("baleen.v1.Worker")))
      << "workers dial another port";
}

// gRPC's own health service comes without a descriptor: grpcurl saw it in the list and could not
// call it.
TEST_F(StandardServices, ReflectionDescribesThem) {
  const std::pair<std::string, std::string> services[] = {
      {"baleen.v1.Inference", "reasoning_delta"}, {"grpc.health.v1.Health", "HealthCheckRequest"}};
  for (const auto& [service, has] : services) {
    // ServerReflectionRequest{file_containing_symbol = 4}
    const Answer answer =
        Call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
             "\x22" + std::string(1, static_cast<char>(service.size())) + service);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_THAT(answer.bytes, HasSubstr(has));
  }
}

TEST_F(StandardServices, HealthFollowsTheDrain) {
  for (const char* service : {"", "baleen.v1.Inference"}) {
    EXPECT_EQ(Health(service).bytes, "\x08\x01") << service;
  }
  EXPECT_EQ(Health("nobody").status.error_code(), grpc::StatusCode::NOT_FOUND);
  router_->StartDraining();
  for (const char* service : {"", "baleen.v1.Inference"}) {
    EXPECT_EQ(Health(service).bytes, "\x08\x02") << service;
  }
}

TEST_F(StandardServices, UnknownMethodsAreUnimplemented) {
  EXPECT_EQ(Call("/baleen.v1.Inference/Nothing", "").status.error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(Call("/baleen.v1.Worker/Attach", "").status.error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(StandardServices, APortInUseIsAClearError) {
  RouterOptions options;
  options.models = {kModelDirectory};
  options.listen = router_->client_address();
  const auto second = Router::Start(options, SystemClock());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("cannot listen for clients on " + router_->client_address()));
}

TEST_F(StandardServices, AModelDirectoryThatIsNotThereIsAClearError) {
  RouterOptions options;
  options.models = {"models/nowhere"};
  const auto router = Router::Start(options, SystemClock());
  EXPECT_THAT(std::string(router.status().message()), HasSubstr("'models/nowhere' does not exist"));
  options.models = {"CMakeLists.txt"};
  EXPECT_THAT(std::string(Router::Start(options, SystemClock()).status().message()),
              HasSubstr("'CMakeLists.txt' is not a directory"));
  options.models = {"tests"};
  EXPECT_THAT(std::string(Router::Start(options, SystemClock()).status().message()),
              HasSubstr("model directory 'tests': neither config.json nor tokenizer.json"));
  options.models = {kModelDirectory, kModelDirectory};
  EXPECT_THAT(std::string(Router::Start(options, SystemClock()).status().message()),
              HasSubstr("two model directories are named 'nano'"));
}

}  // namespace
}  // namespace baleen::router
