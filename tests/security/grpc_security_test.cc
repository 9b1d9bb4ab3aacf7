// The table in front of real gRPC servers: certificates of every kind against every method.
#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <optional>
#include <string>

#include "observability/base/clock.h"
#include "proto/contract/status.h"
#include "security/authorization/authorization.h"
#include "security/grpc/channel_credentials.h"
#include "security/grpc/server_credentials.h"
#include "tests/fakes/fake_certificates.h"

namespace baleen::security {
namespace {

using fakes::FakeAuthority;
using grpc::StatusCode;
using ::testing::HasSubstr;

constexpr auto kCallWait = std::chrono::seconds(20);

// Ends every call that gets to it with OK, whatever its method. Streams named so live until the
// client closes them.
class AnyService final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    class Reactor final : public grpc::ServerGenericBidiReactor {
     public:
      explicit Reactor(bool echoes) : echoes_(echoes) {
        if (echoes_) {
          StartRead(&message_);
        } else {
          Finish(grpc::Status::OK);
        }
      }
      void OnReadDone(bool ok) override {
        if (!ok) return Finish(grpc::Status::OK);
        StartWrite(&message_);
      }
      void OnWriteDone(bool) override { StartRead(&message_); }
      void OnDone() override { delete this; }

     private:
      const bool echoes_;
      grpc::ByteBuffer message_;
    };
    return new Reactor(context->method() == "/baleen.v1.Worker/Attach");
  }
};

class Server {
 public:
  Server(const ServerSecurity& security, const std::string& address = "127.0.0.1:0") {
    auto credentials = MakeServerCredentials(security);
    EXPECT_TRUE(credentials.ok()) << credentials.status();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(address, *credentials, &port);
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
    EXPECT_NE(server_, nullptr);
    address_ = address.starts_with("unix") ? address : "127.0.0.1:" + std::to_string(port);
  }
  ~Server() { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return address_; }

 private:
  AnyService service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// A stream that is opened, half-closed, and ended by the server.
class OneCall final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  OneCall(grpc::GenericStub& stub, const std::string& method, const std::string& authorization) {
    context_.set_deadline(std::chrono::system_clock::now() + kCallWait);
    if (!authorization.empty()) context_.AddMetadata("authorization", authorization);
    stub.PrepareBidiStreamingCall(&context_, method, {}, this);
    StartRead(&message_);
    StartWritesDone();
    StartCall();
  }
  grpc::Status Await() { return done_.get_future().get(); }
  void OnDone(const grpc::Status& status) override { done_.set_value(status); }

 private:
  grpc::ClientContext context_;
  grpc::ByteBuffer message_;
  std::promise<grpc::Status> done_;
};

std::shared_ptr<grpc::Channel> Dial(const std::string& address,
                                    const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel, std::string_view method,
                  const std::string& authorization = "") {
  grpc::GenericStub stub(channel);
  return OneCall(stub, std::string(method), authorization).Await();
}

class GrpcSecurity : public ::testing::Test {
 protected:
  std::shared_ptr<CertificateStore> Open(const CertificateFiles& files) {
    auto store = CertificateStore::Open(files, SystemClock());
    EXPECT_TRUE(store.ok()) << store.status();
    return *store;
  }
  std::shared_ptr<grpc::Channel> DialWith(const Server& server, const CertificateFiles& files,
                                          Role role) {
    return Dial(server.address(), MakeInternalChannelCredentials(Open(files), role));
  }
  // What a client that we did not write would do: no check of the server's role, and a certificate
  // that is not even looked at here.
  std::shared_ptr<grpc::Channel> DialRaw(const Server& server, const CertificateFiles& files) {
    grpc::SslCredentialsOptions options{.pem_root_certs =
                                            fakes::ReadFile(authority_.authority_file())};
    if (!files.certificate.empty()) {
      options.pem_private_key = fakes::ReadFile(files.key);
      options.pem_cert_chain = fakes::ReadFile(files.certificate);
    }
    return Dial(server.address(), grpc::SslCredentials(options));
  }

  FakeAuthority authority_{"authority"};
};

struct Inside {
  Port port;
  Role role;  // of the server
  const char* name;
};
constexpr Inside kInside[] = {{Port::kWorkers, Role::kRouter, "router"},
                              {Port::kGroupLeader, Role::kWorker, "worker"}};

TEST_F(GrpcSecurity, InsideEveryMethodTakesTheRightCertificateOnly) {
  const FakeAuthority stranger("stranger");
  for (const auto& [port, role, name] : kInside) {
    const Server server({.port = port, .certificates = Open(authority_.IssueRole(name))});
    const auto worker = DialRaw(server, authority_.IssueRole("worker"));
    const auto router = DialRaw(server, authority_.IssueRole("router"));
    const auto foreign = DialRaw(server, authority_.IssueRole("worker", "other"));
    const auto nothing = DialRaw(server, authority_.Issue("nothing", {}));
    const auto two = DialRaw(
        server,
        authority_.Issue("two", {.uris = {"spiffe://test/worker", "spiffe://test/router"}}));
    const auto none = DialRaw(server, {});
    const auto expired =
        DialRaw(server, authority_.Issue("expired", {.uris = {"spiffe://test/worker"},
                                                     .begins = -absl::Hours(2),
                                                     .ends = -absl::Hours(1)}));
    const auto unknown = DialRaw(server, stranger.IssueRole("worker"));
    const auto plain = Dial(server.address(), grpc::InsecureChannelCredentials());
    for (const MethodRule& rule : AuthorizationTable()) {
      const auto code = [&](const auto& channel) { return Call(channel, rule.path).error_code(); };
      const bool here = rule.port == port;
      const auto denied = here ? StatusCode::PERMISSION_DENIED : StatusCode::UNIMPLEMENTED;
      EXPECT_EQ(code(worker), here ? StatusCode::OK : StatusCode::UNIMPLEMENTED) << rule.path;
      const bool router_may = here && rule.who == Who::kWorkerOrRouter;
      EXPECT_EQ(code(router), router_may ? StatusCode::OK : denied) << rule.path;
      EXPECT_EQ(code(foreign), denied) << rule.path;
      EXPECT_EQ(code(nothing), denied) << rule.path;
      EXPECT_EQ(code(two), denied) << rule.path;
      // These do not get as far as a call.
      EXPECT_EQ(code(none), StatusCode::UNAVAILABLE) << rule.path;
      EXPECT_EQ(code(expired), StatusCode::UNAVAILABLE) << rule.path;
      EXPECT_EQ(code(unknown), StatusCode::UNAVAILABLE) << rule.path;
      EXPECT_EQ(code(plain), StatusCode::UNAVAILABLE) << rule.path;
    }
    EXPECT_EQ(Call(worker, "/baleen.v1.Nobody/Nothing").error_code(), StatusCode::UNIMPLEMENTED);
  }
}

TEST_F(GrpcSecurity, AClientInsideTakesTheRightServerOnly) {
  const FakeAuthority stranger("stranger");
  const auto own = authority_.Issue("own", {.uris = {"spiffe://test/worker"}});
  const auto attach = [&](const CertificateFiles& server_files) {
    const Server server({.port = Port::kWorkers, .certificates = Open(server_files)});
    return Call(DialWith(server, own, Role::kRouter), "/baleen.v1.Worker/Attach");
  };
  const auto right = attach(authority_.IssueRole("router"));
  EXPECT_TRUE(right.ok()) << right.error_message();
  EXPECT_EQ(attach(authority_.IssueRole("router", "other")).error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(attach(stranger.IssueRole("router")).error_code(), StatusCode::UNAVAILABLE);
  // A server of the wrong role does not even start as such; one that is not ours would.
  const Server impostor(
      {.port = Port::kGroupLeader, .certificates = Open(authority_.IssueRole("worker"))});
  const grpc::Status status =
      Call(DialWith(impostor, own, Role::kRouter), "/baleen.v1.Group/Describe");
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(GrpcSecurity, APortOfTheInsideNeedsACertificateOfItsRole) {
  const auto code = [&](const CertificateFiles& files) {
    return MakeServerCredentials({.port = Port::kWorkers, .certificates = Open(files)})
        .status()
        .code();
  };
  EXPECT_EQ(code(authority_.IssueRole("router")), absl::StatusCode::kOk);
  EXPECT_EQ(code(authority_.IssueRole("worker")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(authority_.Issue("nobody", {})), absl::StatusCode::kInvalidArgument);
}

TEST_F(GrpcSecurity, GroupsMeetOnAnAbstractSocketAsWell) {
  const std::string address = "unix-abstract:baleen-security-test-" + std::to_string(::getpid());
  const Server server(
      {.port = Port::kGroupLeader, .certificates = Open(authority_.IssueRole("worker"))}, address);
  const auto own = authority_.Issue("own", {.uris = {"spiffe://test/worker"}});
  const grpc::Status status = Call(DialWith(server, own, Role::kWorker), "/baleen.v1.Group/Join");
  EXPECT_TRUE(status.ok()) << status.error_message();
}

absl::Status CheckTestKey(std::string_view presented) {
  if (presented == "Bearer good") return absl::OkStatus();
  return contract::MakeStatus(contract::Reason::kUnauthenticated, "the API key is not known");
}

TEST_F(GrpcSecurity, ClientsNeedAKeyForEveryMethodButHealth) {
  auto public_files = authority_.Issue("public", {});
  public_files.authority.clear();
  for (const bool tls : {false, true}) {
    const Server server({.port = Port::kClients,
                         .certificates = tls ? Open(public_files) : nullptr,
                         .check_key = CheckTestKey});
    const auto credentials = tls ? *MakeClientChannelCredentials(authority_.authority_file())
                                 : grpc::InsecureChannelCredentials();
    const auto channel = Dial(server.address(), credentials);
    for (const MethodRule& rule : AuthorizationTable()) {
      const bool here = rule.port == Port::kClients;
      const bool open = rule.who == Who::kAnyone;
      const auto refused = !here  ? StatusCode::UNIMPLEMENTED
                           : open ? StatusCode::OK
                                  : StatusCode::UNAUTHENTICATED;
      const grpc::Status without = Call(channel, rule.path);
      EXPECT_EQ(without.error_code(), refused) << rule.path << without.error_message();
      EXPECT_EQ(Call(channel, rule.path, "Bearer bad").error_code(), refused) << rule.path;
      EXPECT_EQ(Call(channel, rule.path, "Bearer good").error_code(),
                here ? StatusCode::OK : StatusCode::UNIMPLEMENTED)
          << rule.path;
    }
    EXPECT_EQ(Call(channel, "/baleen.v1.Inference/Chat").error_message(),
              "unauthenticated: the API key is not known");
  }
}

// CVE-2026-48746 of a peer: two parts of one server disagreed about which of two keys counts.
TEST_F(GrpcSecurity, TwoKeysAreNone) {
  const Server server({.port = Port::kClients, .check_key = CheckTestKey});
  grpc::GenericStub stub(Dial(server.address(), grpc::InsecureChannelCredentials()));
  class TwoKeys final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
   public:
    explicit TwoKeys(grpc::GenericStub& stub) {
      context_.AddMetadata("authorization", "Bearer good");
      context_.AddMetadata("authorization", "Bearer other");
      stub.PrepareBidiStreamingCall(&context_, "/baleen.v1.Inference/Chat", {}, this);
      StartWritesDone();
      StartCall();
    }
    void OnDone(const grpc::Status& status) override { done.set_value(status); }
    std::promise<grpc::Status> done;

   private:
    grpc::ClientContext context_;
  } call(stub);
  EXPECT_EQ(call.done.get_future().get().error_code(), StatusCode::UNAUTHENTICATED);
}

TEST_F(GrpcSecurity, AClientChecksTheServersHostName) {
  auto files = authority_.Issue("elsewhere", {.hosts = {"elsewhere.example.org"}});
  files.authority.clear();
  const Server server({.port = Port::kClients, .certificates = Open(files)});
  const auto channel =
      Dial(server.address(), *MakeClientChannelCredentials(authority_.authority_file()));
  EXPECT_EQ(Call(channel, "/baleen.v1.Inference/ListModels").error_code(), StatusCode::UNAVAILABLE);
}

// A stream that echoes what is written to it.
class Stream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit Stream(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
    stub_.PrepareBidiStreamingCall(&context_, "/baleen.v1.Worker/Attach", {}, this);
    AddHold();
    StartCall();
  }
  ~Stream() override {
    context_.TryCancel();
    RemoveHold();
    done_.get_future().wait();
  }
  // Whether a message there comes back.
  bool Echo() {
    read_.emplace();
    const grpc::Slice slice("x");
    out_ = grpc::ByteBuffer(&slice, 1);
    StartRead(&in_);
    StartWrite(&out_);
    return read_->get_future().get();
  }
  void OnReadDone(bool ok) override { read_->set_value(ok); }
  void OnDone(const grpc::Status&) override { done_.set_value(); }

 private:
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer in_;
  grpc::ByteBuffer out_;
  std::optional<std::promise<bool>> read_;
  std::promise<void> done_;
};

// Looks at its files each time.
class RestlessClock final : public Clock {
 public:
  absl::Duration Monotonic() const override {
    steps_.Advance(absl::Seconds(2));
    return steps_.Monotonic();
  }
  absl::Time Wall() const override { return SystemClock().Wall(); }

 private:
  mutable ManualClock steps_;
};

TEST_F(GrpcSecurity, NewCertificatesServeNewConnectionsWhileOldOnesLive) {
  const RestlessClock clock;
  const auto files = authority_.IssueRole("router");
  const auto own = authority_.Issue("own", {.uris = {"spiffe://test/worker"}});
  const Server server(
      {.port = Port::kWorkers, .certificates = *CertificateStore::Open(files, clock)});
  Stream old(DialWith(server, own, Role::kRouter));
  ASSERT_TRUE(old.Echo());

  // All of the cluster is moved to another authority.
  const FakeAuthority next("next");
  const auto next_files = next.IssueRole("router");
  const auto next_own = next.Issue("own", {.uris = {"spiffe://test/worker"}});
  fakes::WriteFile(files.authority, fakes::ReadFile(next_files.authority));
  fakes::WriteFile(files.certificate, fakes::ReadFile(next_files.certificate));
  EXPECT_EQ(
      Call(DialWith(server, next_own, Role::kRouter), "/baleen.v1.Worker/Attach").error_code(),
      StatusCode::UNAVAILABLE)
      << "half of the new files is not used";
  fakes::WriteFile(files.key, fakes::ReadFile(next_files.key));

  Stream fresh(DialWith(server, next_own, Role::kRouter));
  EXPECT_TRUE(fresh.Echo());
  EXPECT_TRUE(old.Echo()) << "a connection keeps what it was made with";
  EXPECT_EQ(Call(DialRaw(server, own), "/baleen.v1.Worker/Attach").error_code(),
            StatusCode::UNAVAILABLE)
      << "the old authority is not believed any more";
  EXPECT_TRUE(old.Echo());
}

}  // namespace
}  // namespace baleen::security
