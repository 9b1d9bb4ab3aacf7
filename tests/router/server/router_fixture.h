// A whole router in this process, with the quick-start model's tokenizer and fake workers over real
// gRPC.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "proto/baleen/v1/inference.grpc.pb.h"
#include "router/router.h"
#include "router/text/tokenizer.h"
#include "tests/fakes/fake_worker.h"

namespace baleen::router {

inline constexpr char kModelDirectory[] = "models/nano";
inline constexpr std::chrono::seconds kPatience{30};

// What a stream said, put together.
struct ChatResult {
  grpc::Status status;
  std::string reasoning;
  std::string content;
  std::vector<std::int32_t> token_ids;
  std::vector<v1::ChatChunk> chunks;

  const v1::ChatChunk& last() const { return chunks.back(); }
};

struct GenerateResult {
  grpc::Status status;
  std::string text;
  std::vector<std::int32_t> token_ids;
  std::vector<v1::GenerateChunk> chunks;
};

class RouterTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    log::Init("test", log::Format::kText, log::Level::kError);
    tokenizer_ = Tokenizer::Load(kModelDirectory).value();
  }

  void SetUp() override { StartRouter({}); }

  void StartRouter(RouterOptions options, const RouterTuning& tuning = {}) {
    router_.reset();
    options.models = {kModelDirectory};
    auto started = Router::Start(options, SystemClock(), tuning);
    ASSERT_TRUE(started.ok()) << started.status();
    router_ = *std::move(started);
    channel_ = grpc::CreateCustomChannel(router_->client_address(),
                                         grpc::InsecureChannelCredentials(), ChannelArguments());
    stub_ = v1::Inference::NewStub(channel_);
  }

  // A connection of its own, and no limit of the client's that could hide one of the router.
  static grpc::ChannelArguments ChannelArguments() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxSendMessageSize(-1);
    return arguments;
  }

  // Ids of `text`, with its control tokens, as a model would say it.
  static std::vector<std::int32_t> Ids(const std::string& text) {
    return tokenizer_->Encode(text, ControlText::kAsTokens).value();
  }

  static std::vector<std::int32_t> ReplyOf(const std::string& text) {
    std::vector<std::int32_t> ids = Ids(text);
    ids.push_back(kEos);
    return ids;
  }

  // A worker of this router that has attached. `name` begins with its role.
  fakes::FakeWorker& Attach(const std::string& name, fakes::FakeWorkerOptions options) {
    options.router = router_->worker_address();
    options.name = name;
    options.role = name.starts_with("prefill")  ? v1::ROLE_PREFILL
                   : name.starts_with("decode") ? v1::ROLE_DECODE
                                                : v1::ROLE_MIXED;
    workers_.push_back(std::make_unique<fakes::FakeWorker>(options, plane_));
    EXPECT_TRUE(workers_.back()->WaitWelcome()) << workers_.back()->WaitEnd().error_message();
    return *workers_.back();
  }

  static v1::ChatRequest Question(const std::string& text = "What is 1 + 1?") {
    v1::ChatRequest request;
    v1::Message& message = *request.add_messages();
    message.set_role("user");
    message.set_content(text);
    return request;
  }

  static v1::GenerateRequest Prompt(std::vector<std::int32_t> ids) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    return request;
  }

  static std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
    return context;
  }

  ChatResult Chat(const v1::ChatRequest& request) {
    const auto context = Context();
    return Chat(request, *context);
  }

  ChatResult Chat(const v1::ChatRequest& request, grpc::ClientContext& context) {
    const auto stream = stub_->Chat(&context, request);
    return ReadToEnd(*stream);
  }

  // `read` tokens of the stream have been read before.
  static ChatResult ReadToEnd(grpc::ClientReader<v1::ChatChunk>& stream, std::size_t read = 0) {
    ChatResult result;
    v1::ChatChunk chunk;
    while (stream.Read(&chunk)) {
      EXPECT_EQ(chunk.first_token_index(), read + result.token_ids.size())
          << "chunks are contiguous";
      result.reasoning += chunk.reasoning_delta();
      result.content += chunk.delta();
      result.token_ids.insert(result.token_ids.end(), chunk.token_ids().begin(),
                              chunk.token_ids().end());
      result.chunks.push_back(chunk);
    }
    result.status = stream.Finish();
    return result;
  }

  GenerateResult Generate(const v1::GenerateRequest& request) {
    const auto context = Context();
    const auto stream = stub_->Generate(context.get(), request);
    GenerateResult result;
    v1::GenerateChunk chunk;
    while (stream->Read(&chunk)) {
      result.text += chunk.delta();
      result.token_ids.insert(result.token_ids.end(), chunk.token_ids().begin(),
                              chunk.token_ids().end());
      result.chunks.push_back(chunk);
    }
    result.status = stream->Finish();
    return result;
  }

  // What happens on other threads shows soon.
  static bool WaitFor(const std::function<bool()>& holds) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      std::this_thread::yield();
    }
    return true;
  }

  static constexpr std::int32_t kEos = 1;  // of the quick-start model, and of fake workers
  static inline std::shared_ptr<const Tokenizer> tokenizer_;

  fakes::FakeDataPlane plane_;
  std::unique_ptr<Router> router_;
  std::vector<std::unique_ptr<fakes::FakeWorker>> workers_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace baleen::router
