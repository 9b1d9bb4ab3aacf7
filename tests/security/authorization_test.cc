// Who may call what: the table, and the identities that it asks for.
#include "security/authorization/authorization.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpc/health/v1/health.pb.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "proto/baleen/v1/group.pb.h"
#include "proto/baleen/v1/inference.pb.h"
#include "proto/baleen/v1/worker.pb.h"
#include "proto/contract/status.h"

namespace baleen::security {
namespace {

using ::testing::HasSubstr;

void AddMethods(const google::protobuf::ServiceDescriptor& service, std::set<std::string>& paths) {
  for (int i = 0; i < service.method_count(); ++i) {
    paths.insert("/" + service.full_name() + "/" + service.method(i)->name());
  }
}

// From what the compiler of protocol buffers has made, and from the folder of its sources, so that
// a new service can not be overlooked.
std::set<std::string> AllMethods() {
  const auto& pool = *google::protobuf::DescriptorPool::generated_pool();
  // Whatever is used of a file links its descriptor in.
  (void)v1::ChatRequest::descriptor();
  (void)v1::WorkerMessage::descriptor();
  (void)v1::MemberMessage::descriptor();
  (void)grpc::health::v1::HealthCheckRequest::descriptor();
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  std::set<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("proto")) {
    if (entry.path().extension() != ".proto") continue;
    std::string name = entry.path();
    if (name.starts_with("proto/grpc/")) name.erase(0, std::string_view("proto/").size());
    const auto* const file = pool.FindFileByName(name);
    EXPECT_NE(file, nullptr) << name << " is not part of this test: add its generated header";
    for (int i = 0; file != nullptr && i < file->service_count(); ++i) {
      AddMethods(*file->service(i), paths);
    }
  }
  const auto* const reflection = pool.FindServiceByName("grpc.reflection.v1alpha.ServerReflection");
  EXPECT_NE(reflection, nullptr);
  if (reflection != nullptr) AddMethods(*reflection, paths);
  return paths;
}

TEST(AuthorizationTable, HasEveryMethodOfEveryServiceAndNoOther) {
  std::set<std::string> known;
  for (const MethodRule& rule : AuthorizationTable()) known.emplace(rule.path);
  const std::set<std::string> methods = AllMethods();
  EXPECT_GE(methods.size(), 11u);
  for (const std::string& method : methods) {
    EXPECT_TRUE(known.contains(method)) << method << " has no entry: nobody may call it";
  }
  for (const std::string& path : known) {
    EXPECT_TRUE(methods.contains(path)) << path << " is in the table and in no service";
  }
}

TEST(Authorize, RefusesWhatIsNotInTheTable) {
  for (const Port port : {Port::kClients, Port::kWorkers, Port::kGroupLeader}) {
    const PortRules rules{.port = port};
    for (const char* path :
         {"", "/", "/baleen.v1.Inference/", "/baleen.v1.Inference/Nothing",
          "/baleen.v1.Inference/Chat/", "baleen.v1.Inference/Chat", "//baleen.v1.Inference/Chat",
          "/baleen.v1.inference/chat", "/zzz", "/baleen.v1.Inference/Chat?x=1"}) {
      EXPECT_EQ(Authorize(rules, {.path = path}).code(), absl::StatusCode::kUnimplemented) << path;
    }
  }
}

TEST(Authorize, ServesEveryMethodOnItsPortOnly) {
  for (const MethodRule& rule : AuthorizationTable()) {
    for (const Port port : {Port::kClients, Port::kWorkers, Port::kGroupLeader}) {
      const absl::Status status = Authorize({.port = port}, {.path = rule.path});
      if (port == rule.port) {
        EXPECT_TRUE(status.ok()) << rule.path << status;
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << rule.path;
      }
    }
  }
}

TEST(Authorize, AsksForAKeyExceptOfProbes) {
  const PortRules rules{.check_key = [](std::string_view presented) {
    return presented == "Bearer good"
               ? absl::OkStatus()
               : contract::MakeStatus(contract::Reason::kUnauthenticated, "no");
  }};
  for (const MethodRule& rule : AuthorizationTable()) {
    if (rule.port != Port::kClients) continue;
    const bool open = rule.path.starts_with("/grpc.health.");
    EXPECT_EQ(Authorize(rules, {.path = rule.path}).ok(), open) << rule.path;
    EXPECT_TRUE(Authorize(rules, {.path = rule.path, .authorization = "Bearer good"}).ok());
  }
}

TEST(Authorize, AsksForTheRoleWhereCertificatesAreUsed) {
  const absl::StatusOr<Identity> worker = Identity{"here", Role::kWorker};
  const absl::StatusOr<Identity> router = Identity{"here", Role::kRouter};
  const absl::StatusOr<Identity> foreign = Identity{"there", Role::kWorker};
  const absl::StatusOr<Identity> none = absl::InvalidArgumentError("no URI");
  for (const MethodRule& rule : AuthorizationTable()) {
    if (rule.port == Port::kClients) continue;
    const PortRules rules{.port = rule.port, .own = Identity{"here", Role::kWorker}};
    const auto code = [&](const absl::StatusOr<Identity>* peer) {
      return Authorize(rules, {.path = rule.path, .peer = peer}).code();
    };
    EXPECT_EQ(code(&worker), absl::StatusCode::kOk) << rule.path;
    EXPECT_EQ(code(&router), rule.who == Who::kWorkerOrRouter ? absl::StatusCode::kOk
                                                              : absl::StatusCode::kPermissionDenied)
        << rule.path;
    EXPECT_EQ(code(&foreign), absl::StatusCode::kPermissionDenied) << rule.path;
    EXPECT_EQ(code(&none), absl::StatusCode::kPermissionDenied) << rule.path;
    EXPECT_EQ(code(nullptr), absl::StatusCode::kUnauthenticated) << rule.path;
  }
}

TEST(Identity, IsReadFromTheCanonicalFormOnly) {
  for (const auto& [uri, role] : std::vector<std::pair<std::string, Role>>{
           {"spiffe://a/router", Role::kRouter},
           {"spiffe://prod.example.org/ns/x/sa/worker", Role::kWorker},
           {"spiffe://a/router/worker", Role::kWorker},
           {"spiffe://a_b-c.1/A.b-C_9/router", Role::kRouter}}) {
    const auto identity = ParseSpiffeId(uri);
    ASSERT_TRUE(identity.ok()) << uri << identity.status();
    EXPECT_EQ(identity->role, role) << uri;
  }
  EXPECT_EQ(ParseSpiffeId("spiffe://prod.example.org/worker")->trust_domain, "prod.example.org");
  using std::string_literals::operator""s;
  const std::vector<std::string> wrong = {"",
                                          "spiffe://",
                                          "spiffe:///worker",
                                          "spiffe://a",
                                          "spiffe://a/",
                                          "spiffe://a/worker/",
                                          "spiffe://a//worker",
                                          "spiffe://a/./worker",
                                          "spiffe://a/../worker",
                                          "spiffe://a/admin",
                                          "spiffe://a/Worker",
                                          "spiffe://a/workers",
                                          "SPIFFE://a/worker",
                                          "spiffe://A/worker",
                                          "spiffe://a:1/worker",
                                          "spiffe://u@a/worker",
                                          "spiffe://a/worker?x",
                                          "spiffe://a/worker#x",
                                          "spiffe://a/%77orker",
                                          "spiffe://a /worker",
                                          "https://a/worker",
                                          " spiffe://a/worker",
                                          "spiffe://a/worker\n",
                                          "spiffe://a/x\0/worker"s,
                                          "spiffe://a\0/worker"s,
                                          "spiffe://" + std::string(256, 'a') + "/worker",
                                          "spiffe://a/" + std::string(2048, 'a') + "/worker"};
  for (const std::string& uri : wrong) {
    EXPECT_EQ(ParseSpiffeId(uri).status().code(), absl::StatusCode::kInvalidArgument) << uri;
  }
}

TEST(Identity, IsTheOnlyUriOfACertificate) {
  const std::vector<std::string> none;
  const std::vector<std::string> two = {"spiffe://a/worker", "spiffe://a/router"};
  const std::vector<std::string> same = {"spiffe://a/worker", "spiffe://a/worker"};
  const std::vector<std::string> other = {"spiffe://a/worker", "https://example.org"};
  for (const auto& uris : {none, two, same, other}) {
    EXPECT_FALSE(IdentityOf(uris).ok());
  }
  EXPECT_THAT(std::string(IdentityOf(two).status().message()), HasSubstr("2 URIs"));
  const std::vector<std::string> one = {"spiffe://a/worker"};
  EXPECT_TRUE(IdentityOf(one).ok());
}

}  // namespace
}  // namespace baleen::security
