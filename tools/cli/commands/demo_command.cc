#include "tools/cli/commands/demo_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "tools/cli/session/chat_session.h"
#include "tools/cli/session/exit_code.h"

namespace baleen::cli {
namespace {

// The demo shows the reasoning wherever it runs.
AnswerOutput DemoOutput() {
  return {.reasoning = STDOUT_FILENO,
          .answer = STDOUT_FILENO,
          .reasoning_style = Style(ColoursOn(STDOUT_FILENO))};
}

void Say(const std::string& text) { WriteAll(STDOUT_FILENO, text); }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int AskAndStay(const DemoOptions& options, const RunningCluster& cluster, Interrupts& interrupts) {
  const Style style(ColoursOn(STDOUT_FILENO));
  const std::string authority = TlsAuthorityOf(options.cluster.spec);
  const auto client =
      InferenceClient::Open({.address = cluster[0].ready.at("grpc"), .tls_ca_file = authority});
  if (!client.ok()) return ExitWith(client.status());
  ChatSession session({}, **client, interrupts);
  Say(fmt::format("\n{} {}\n", style.Paint(Look::kBold, ">"), options.question));
  const auto reply = session.Ask(options.question, DemoOutput());
  if (!reply.ok()) return ExitWith(reply.status());

  TableRows rows = FigureRows(*reply);
  for (auto& row : AddressRows(cluster, !authority.empty())) rows.push_back(std::move(row));
  Say(fmt::format("\n{}", RenderTable(rows, style)));
  if (!options.expect.empty() && !ContainsNumber(reply->content, options.expect)) {
    return ExitWith(absl::DataLossError(
        fmt::format("the answer is wrong: it does not contain {}", options.expect)));
  }
  if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDOUT_FILENO) != 1) return kExitGood;
  Say("\nAsk more; Ctrl-C ends.\n");
  session.StartOver();
  return ExitWith(Converse(session, interrupts, [&](const ChatResult& more) {
    Say(fmt::format("{}", RenderTable(FigureRows(more), style)));
  }));
}

}  // namespace

void AddDemoOptions(CLI::App& command, DemoOptions& options) {
  options.cluster.spec.log_level = "warning";
  AddClusterOptions(command, options.cluster);
  auto* question = command.add_option("--question", options.question, "What to ask first");
  auto* expect = command.add_option("--expect", options.expect, "Number in the right answer");
  command.parse_complete_callback([&options, &command, question, expect] {
    ChooseWorkers(command, options.cluster);
    if (question->count() > 0 && expect->count() == 0) options.expect.clear();
  });
}

bool ContainsNumber(std::string_view text, std::string_view number) {
  for (std::size_t at = text.find(number); at != text.npos; at = text.find(number, at + 1)) {
    const std::size_t end = at + number.size();
    const bool starts = at == 0 || !IsDigit(text[at - 1]);
    const bool ends = end == text.size() || !IsDigit(text[end]);
    if (starts && ends) return true;
  }
  return false;
}

TableRows FigureRows(const ChatResult& reply) {
  const v1::Timing& timing = reply.timing;
  return {{"time to first token", FormatMicroseconds(timing.time_to_first_token_us())},
          {"tokens/s",
           fmt::format("{:.0f}, {} tokens of which {} reason", TokensPerSecond(reply.usage, timing),
                       reply.usage.completion_tokens(), reply.usage.reasoning_tokens())},
          {"prefilled by", timing.prefill_worker()},
          {"decoded by", timing.decode_worker()},
          {"KV moved", FormatBytes(timing.kv_transfer_bytes())}};
}

int RunDemo(const DemoOptions& options) {
  const ClusterSpec& spec = options.cluster.spec;
  if (const auto valid = CheckClusterOptions(options.cluster); !valid.ok()) {
    return ExitWithUsage(valid);
  }
  BlockSignals();
  auto interrupts = Interrupts::Create();
  if (!interrupts.ok()) return ExitWith(interrupts.status());
  Say(fmt::format("== starting 1 router, {} prefill, {} decode, {} mixed workers with {}\n",
                  ToString(spec.prefill), ToString(spec.decode), ToString(spec.mixed),
                  spec.model_directory));
  const absl::Duration begun = SystemClock().Monotonic();
  auto cluster = LocalCluster::Start(options.cluster);
  if (!cluster.ok()) return ExitWithMessage(cluster.status());
  absl::StatusOr<RunningCluster> running = absl::UnknownError("");
  {
    Interrupts::Answering starting(**interrupts, [&] { (*cluster)->RequestStop(); });
    running = (*cluster)->WaitUntilReady();
  }
  if (!running.ok()) return ExitWithMessage(running.status());
  Say(fmt::format("== ready after {:.1f} s\n",
                  absl::ToDoubleSeconds(SystemClock().Monotonic() - begun)));
  const int exit_code = AskAndStay(options, *running, **interrupts);
  Interrupts::Answering stopping(**interrupts, [&] { (*cluster)->RequestStop(); });
  const absl::Status stopped = (*cluster)->Stop();
  return exit_code != kExitGood ? exit_code : ExitWithMessage(stopped);
}

}  // namespace baleen::cli
