// Requests that go well, through a whole router: text in, text out, over a prefill and a decode
// rank or a mixed one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <set>
#include <string>
#include <vector>

#include "tests/router/server/router_fixture.h"

namespace baleen::router {
namespace {

using fakes::FakeWorker;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST_F(RouterTest, ChatSplitsReasoningFromAnswer) {
  const std::vector<std::int32_t> reply = ReplyOf("1 + 1\n</think>\n\nIt is 2.");
  FakeWorker& prefill = Attach("prefill-0.0", {.reply = reply});
  FakeWorker& decode = Attach("decode-0.0", {.reply = reply});
  v1::ChatRequest request = Question();
  request.set_return_prompt_token_ids(true);
  const ChatResult result = Chat(request);

  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.reasoning, "1 + 1");
  EXPECT_EQ(result.content, "It is 2.");
  EXPECT_THAT(result.token_ids, ElementsAreArray(reply));
  for (std::size_t i = 0; i < result.chunks.size(); ++i) {
    const bool is_last = i + 1 == result.chunks.size();
    EXPECT_EQ(result.chunks[i].has_usage(), is_last);
    EXPECT_EQ(result.chunks[i].has_timing(), is_last);
    EXPECT_EQ(result.chunks[i].finish_reason() != v1::FINISH_REASON_UNSPECIFIED, is_last);
    EXPECT_THAT(result.chunks[i].request_id(), StartsWith("req-"));
    EXPECT_EQ(result.chunks[i].request_id(), result.chunks[0].request_id());
  }
  EXPECT_EQ(result.last().finish_reason(), v1::FINISH_REASON_STOP);
  const v1::Usage& usage = result.last().usage();
  const auto close = Ids("</think>").at(0);
  const auto reasoning_tokens = std::find(reply.begin(), reply.end(), close) - reply.begin() + 1;
  EXPECT_EQ(usage.completion_tokens(), reply.size());
  EXPECT_EQ(usage.reasoning_tokens(), static_cast<std::uint32_t>(reasoning_tokens));
  EXPECT_EQ(usage.cached_tokens(), 0u);
  EXPECT_NE(usage.seed(), 0u) << "drawn by the router";
  const v1::Timing& timing = result.last().timing();
  EXPECT_EQ(timing.prefill_worker(), "prefill-0.0");
  EXPECT_EQ(timing.decode_worker(), "decode-0.0");
  EXPECT_EQ(timing.kv_transfer_bytes(), 4096u);
  EXPECT_GT(timing.time_to_first_token_us(), 0u);
  EXPECT_GE(timing.total_us(), timing.time_to_first_token_us());

  const v1::Start start = prefill.state().starts.at(0);
  EXPECT_EQ(start.leg(), v1::LEG_PREFILL);
  EXPECT_EQ(start.peer_data_plane_address(), "fake");
  EXPECT_EQ(start.sampling().seed(), usage.seed());
  EXPECT_EQ(start.sampling().temperature(), 0.0f);
  EXPECT_EQ(start.sampling().top_p(), 1.0f);
  EXPECT_EQ(start.sampling().logprobs(), -1);
  EXPECT_EQ(start.tokens_max(), 4096 - start.prompt_token_ids_size()) << "what is left";
  EXPECT_GT(start.deadline_ms(), 0u);
  EXPECT_EQ(usage.prompt_tokens(), static_cast<std::uint32_t>(start.prompt_token_ids_size()));
  EXPECT_THAT(result.chunks[0].prompt_token_ids(), ElementsAreArray(start.prompt_token_ids()));
  EXPECT_EQ(decode.state().starts.at(0).transfer(), start.transfer());
  EXPECT_NE(start.transfer(), 0u);
}

TEST_F(RouterTest, AMixedWorkerDoesAllOfIt) {
  FakeWorker& worker = Attach("mixed-0.0", {.reply = ReplyOf("a</think>b")});
  const ChatResult result = Chat(Question());
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.content, "b");
  EXPECT_EQ(result.last().timing().prefill_worker(), "mixed-0.0");
  EXPECT_EQ(result.last().timing().decode_worker(), "mixed-0.0");
  EXPECT_EQ(result.last().timing().kv_transfer_bytes(), 0u);
  EXPECT_EQ(worker.state().starts.at(0).leg(), v1::LEG_WHOLE);
  EXPECT_EQ(worker.state().starts.at(0).transfer(), 0u);
}

TEST_F(RouterTest, GenerateWithTokenIdsAndLogprobs) {
  const std::vector<std::int32_t> reply = ReplyOf("12");
  FakeWorker& worker = Attach("mixed-0.0", {.reply = reply});
  v1::GenerateRequest request = Prompt({0, 5, 6});
  request.set_model("nano");
  request.set_logprobs(2);
  request.mutable_sampling()->set_temperature(0.5f);
  request.mutable_sampling()->set_top_k(7);
  request.mutable_sampling()->set_top_p(0.25f);
  request.mutable_sampling()->set_seed(0);
  request.mutable_stop()->set_max_tokens(9);
  request.mutable_stop()->set_ignore_eos(true);
  const GenerateResult result = Generate(request);

  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.text, "12");
  EXPECT_THAT(result.token_ids, ElementsAreArray(reply));
  std::size_t logprobs = 0;
  for (const v1::GenerateChunk& chunk : result.chunks) {
    ASSERT_EQ(chunk.logprobs_size(), chunk.token_ids_size());
    for (int i = 0; i < chunk.logprobs_size(); ++i, ++logprobs) {
      EXPECT_EQ(chunk.logprobs(i).token_id(), chunk.token_ids(i));
      EXPECT_EQ(chunk.logprobs(i).logprob(), -0.5f);
      ASSERT_EQ(chunk.logprobs(i).top_size(), 2);
      EXPECT_EQ(chunk.logprobs(i).top(1).token_id(), 101);
      EXPECT_EQ(chunk.logprobs(i).top(1).logprob(), -2.0f);
    }
  }
  EXPECT_EQ(logprobs, reply.size());
  EXPECT_EQ(result.chunks.back().usage().seed(), 0u) << "a seed of 0 is a seed";
  EXPECT_EQ(result.chunks.back().usage().prompt_tokens(), 3u);

  const v1::Start start = worker.state().starts.at(0);
  EXPECT_THAT(start.prompt_token_ids(), ElementsAre(0, 5, 6));
  EXPECT_EQ(start.sampling().temperature(), 0.5f);
  EXPECT_EQ(start.sampling().top_k(), 7u);
  EXPECT_EQ(start.sampling().top_p(), 0.25f);
  EXPECT_EQ(start.sampling().seed(), 0u);
  EXPECT_EQ(start.sampling().logprobs(), 2);
  EXPECT_EQ(start.tokens_max(), 9u);
  EXPECT_TRUE(start.ignore_eos());
}

TEST_F(RouterTest, GenerateWithTextRecognisesControlTokens) {
  FakeWorker& worker = Attach("mixed-0.0", {.reply = ReplyOf("x")});
  v1::GenerateRequest request;
  request.set_text("12<think>");
  const GenerateResult result = Generate(request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  const v1::Start start = worker.state().starts.at(0);
  EXPECT_EQ(start.prompt_token_ids(start.prompt_token_ids_size() - 1), Ids("<think>").at(0));
  for (const v1::GenerateChunk& chunk : result.chunks) EXPECT_THAT(chunk.logprobs(), IsEmpty());
}

TEST_F(RouterTest, EndsByLengthWhenTheTokensAreUsedUp) {
  Attach("prefill-0.0", {});
  Attach("decode-0.0", {});
  for (const std::uint32_t tokens_max : {1u, 2u, 300u}) {
    v1::GenerateRequest request = Prompt({5, 6});
    request.mutable_stop()->set_max_tokens(tokens_max);
    const GenerateResult result = Generate(request);
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    EXPECT_EQ(result.chunks.back().finish_reason(), v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(result.token_ids.size(), tokens_max);
  }
}

TEST_F(RouterTest, ManyRequestsAtOnceDoNotMix) {
  StartRouter({.client_threads = 2});
  FakeWorker& prefill = Attach("prefill-0.0", {.filler = 50});
  Attach("prefill-0.1", {.filler = 50});
  Attach("decode-0.0", {.filler = 50});
  Attach("decode-0.1", {.filler = 50});
  std::vector<std::future<GenerateResult>> results;
  for (std::uint32_t i = 0; i < 40; ++i) {
    results.push_back(std::async(std::launch::async, [this, i] {
      v1::GenerateRequest request = Prompt({static_cast<std::int32_t>(i) + 3});
      request.mutable_stop()->set_max_tokens(1 + i);
      return Generate(request);
    }));
  }
  std::set<std::string> ids;
  for (std::uint32_t i = 0; i < 40; ++i) {
    const GenerateResult result = results[i].get();
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    EXPECT_EQ(result.token_ids.size(), 1 + i);
    EXPECT_EQ(result.chunks.back().usage().completion_tokens(), 1 + i);
    ids.insert(result.chunks[0].request_id());
  }
  EXPECT_EQ(ids.size(), 40u);
  EXPECT_LT(prefill.state().starts.size(), 40u) << "both prefill ranks are used";
  EXPECT_TRUE(WaitFor([this] { return router_->admitted() == 0; }));
}

TEST_F(RouterTest, TokenizeAsChatAndGenerateWould) {
  v1::TokenizeRequest request;
  request.set_text("12+34");
  v1::TokenizeResponse response;
  auto context = Context();
  ASSERT_TRUE(stub_->Tokenize(context.get(), request, &response).ok());
  EXPECT_THAT(response.token_ids(), ElementsAreArray(Ids("12+34"))) << "no worker is needed";

  FakeWorker& worker = Attach("mixed-0.0", {.reply = ReplyOf("x")});
  *request.mutable_chat()->mutable_messages() = Question().messages();
  context = Context();
  ASSERT_TRUE(stub_->Tokenize(context.get(), request, &response).ok());
  ASSERT_TRUE(Chat(Question()).status.ok());
  EXPECT_THAT(response.token_ids(),
              ElementsAreArray(worker.state().starts.at(0).prompt_token_ids()));
}

TEST_F(RouterTest, ControlTokensInAMessageStayText) {
  FakeWorker& worker = Attach("mixed-0.0", {.reply = ReplyOf("x")});
  ASSERT_TRUE(Chat(Question("<｜end▁of▁sentence｜>")).status.ok());
  const v1::Start start = worker.state().starts.at(0);
  EXPECT_THAT(start.prompt_token_ids(), ::testing::Not(::testing::Contains(kEos)));
}

TEST_F(RouterTest, ListModelsSaysWhatIsAttachedAndWhetherItCanServe) {
  const auto list = [this] {
    v1::ListModelsResponse response;
    const auto context = Context();
    EXPECT_TRUE(stub_->ListModels(context.get(), {}, &response).ok());
    return response;
  };
  EXPECT_THAT(list().models(), IsEmpty());
  Attach("prefill-0.0", {});
  ASSERT_EQ(list().models_size(), 1);
  EXPECT_EQ(list().models(0).name(), "nano");
  EXPECT_EQ(list().models(0).context_tokens(), 4096u);
  EXPECT_EQ(list().models(0).vocabulary_size(), 512u);
  EXPECT_EQ(list().models(0).digest(), std::string(64, 'f'));
  EXPECT_FALSE(list().models(0).ready());
  Attach("decode-0.0", {});
  EXPECT_TRUE(list().models(0).ready());
}

TEST_F(RouterTest, MetricsAddUp) {
  const std::vector<std::int32_t> reply = ReplyOf("a</think>b");
  Attach("mixed-0.0", {.reply = reply});
  ASSERT_TRUE(Chat(Question()).status.ok());
  ASSERT_TRUE(Chat(Question()).status.ok());
  v1::ChatRequest bad = Question();
  bad.set_model("other");
  EXPECT_FALSE(Chat(bad).status.ok());
  metrics::RouterMetrics& metrics = router_->metrics();
  EXPECT_EQ(metrics.RequestsTotal("finished").Value(), 2);
  EXPECT_EQ(metrics.RequestsTotal("model_not_found").Value(), 1);
  EXPECT_EQ(metrics.completion_tokens_total.Value(), 2.0 * static_cast<double>(reply.size()));
  EXPECT_GT(metrics.prompt_tokens_total.Value(), 10);
  EXPECT_TRUE(WaitFor([&metrics] { return metrics.requests_running.Value() == 0; }));
  EXPECT_TRUE(WaitFor([&metrics] { return metrics.requests_waiting.Value() == 0; }));
  // The cluster's gauges are set at the ticks of its thread.
  EXPECT_TRUE(WaitFor([&metrics] { return metrics.workers_attached_mixed.Value() == 1; }));
  const std::string page = router_->metrics_registry().Text();
  EXPECT_THAT(page, HasSubstr("baleen_router_time_to_first_token_seconds_count 2"));
  EXPECT_THAT(page, HasSubstr("baleen_router_request_seconds_count 2"));
  EXPECT_THAT(page, HasSubstr("baleen_router_workers_attached{role=\"mixed\"} 1"));
}

}  // namespace
}  // namespace baleen::router
