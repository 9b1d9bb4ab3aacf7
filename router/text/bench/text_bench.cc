// Speed of text: tokenizing, templates, and the way of a reply from tokens to what a client sees.
//
// With DeepSeek-V3's tokenizer where `make oracle` has fetched it, else with the shipped one.
// of_pypi: bytes per second over those of PyPI's tokenizers, on one thread in the same run, where
// .venv or python3 has them. Machines differ and so do their moods; the ratios are what to compare.
// CPU time of all threads counts, but for pieces, where the clock does.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "observability/base/check.h"
#include "router/text/chat_template.h"
#include "router/text/reply_stream.h"
#include "router/text/tokenizer.h"

namespace baleen::router {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kTextBytes = 900'000;

std::string ModelDir() {
  const std::string fetched = "build/oracle/deepseek_v3";
  return fs::exists(fetched + "/tokenizer.json") ? fetched : "models/nano";
}

// Files of the repository that end so, one after the other, again and again.
std::string Corpus(const std::vector<std::string>& folders, const std::string& ending) {
  std::vector<fs::path> paths;
  for (const std::string& folder : folders) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().string().ends_with(ending)) paths.push_back(entry.path());
    }
  }
  BALEEN_CHECK(!paths.empty(), "run from the root of the repository");
  std::ranges::sort(paths);
  std::string text;
  while (text.size() < kTextBytes) {
    for (const fs::path& path : paths) {
      std::ifstream file(path, std::ios::binary);
      text.append(std::istreambuf_iterator<char>(file), {});
    }
  }
  text.resize(kTextBytes);
  while (!IsValidUtf8(text)) text.pop_back();
  return text;
}

struct Sample {
  const char* name;
  std::string text;
  double pypi = 0.0;  // MB/s; 0: not measured
};

void MeasurePyPI(std::vector<Sample>& samples) {
  std::string command = fs::exists(".venv/bin/python") ? ".venv/bin/python" : "python3";
  command += " tools/golden/text_speed.py " + ModelDir() + "/tokenizer.json";
  std::vector<fs::path> files;
  for (const Sample& sample : samples) {
    files.push_back(fs::temp_directory_path() / (std::string("baleen_bench_") + sample.name));
    std::ofstream(files.back(), std::ios::binary) << sample.text;
    command += " " + files.back().string();
  }
  if (FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r"); pipe != nullptr) {
    for (Sample& sample : samples) {
      if (std::fscanf(pipe, "%lf", &sample.pypi) != 1) break;
    }
    pclose(pipe);
  }
  for (const fs::path& file : files) fs::remove(file);
}

std::vector<Sample>& Samples() {
  static std::vector<Sample> samples = [] {
    std::vector<Sample> made = {{"code", Corpus({"router", "worker"}, ".cc")},
                                {"prose", Corpus({"docs"}, ".md")}};
    Sample mixed = {"chinese", {}};
    while (mixed.text.size() < kTextBytes) {
      mixed.text += "这个模型把一个很长的问题分成几个步骤，然后逐一回答。今天的天气怎么样？";
      mixed.text += "数据从预填充节点传输到解码节点，延迟不超过" +
                    std::to_string(mixed.text.size()) + "微秒。\n";
    }
    made.push_back(std::move(mixed));
    MeasurePyPI(made);
    return made;
  }();
  return samples;
}

const std::shared_ptr<const Tokenizer>& GetTokenizer() {
  static const auto tokenizer = [] {
    auto loaded = Tokenizer::Load(ModelDir());
    BALEEN_CHECK(loaded.ok(), "the model has a tokenizer");
    return *loaded;
  }();
  return tokenizer;
}

void Report(benchmark::State& state, const Sample& sample) {
  state.SetLabel(sample.name);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(sample.text.size()));
  if (sample.pypi > 0.0) {
    state.counters["of_pypi"] =
        benchmark::Counter(static_cast<double>(state.iterations()) *
                               static_cast<double>(sample.text.size()) / 1e6 / sample.pypi,
                           benchmark::Counter::kIsRate);
  }
}

void Encode(benchmark::State& state) {
  const Sample& sample = Samples()[static_cast<std::size_t>(state.range(0))];
  for (auto _ : state) {
    benchmark::DoNotOptimize(GetTokenizer()->Encode(sample.text, ControlText::kAsTokens));
  }
  Report(state, sample);
}
BENCHMARK(Encode)->DenseRange(0, 2)->Unit(benchmark::kMillisecond);

void RunInThreads(std::size_t count, const std::function<void(std::size_t)>& body) {
  std::atomic<std::size_t> next = 0;
  const auto run = [&] {
    for (std::size_t at = next++; at < count; at = next++) body(at);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::max(2u, std::thread::hardware_concurrency()); ++i) {
    threads.emplace_back(run);
  }
  run();
  for (std::thread& thread : threads) thread.join();
}

void EncodeInPieces(benchmark::State& state) {
  const Sample& sample = Samples()[static_cast<std::size_t>(state.range(0))];
  const ParallelFor parallel = RunInThreads;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        GetTokenizer()->Encode(sample.text, ControlText::kAsTokens, {.parallel = &parallel}));
  }
  Report(state, sample);
}
BENCHMARK(EncodeInPieces)->DenseRange(0, 2)->UseRealTime()->Unit(benchmark::kMillisecond);

// A conversation of 40 turns and 90 kB, and the same with one more: what a growing one costs.
void RenderConversation(benchmark::State& state) {
  auto loaded = ChatTemplate::Load(ModelDir(), GetTokenizer());
  BALEEN_CHECK(loaded.ok(), "the model has a template");
  const std::string& text = Samples()[1].text;
  PromptCache cache(std::size_t{16} << 20);
  const bool cached = state.range(0) != 0;
  std::vector<std::string> turns;
  for (std::size_t i = 0; i < 40; ++i) {
    std::size_t begin = i * 2250;
    while ((text[begin] & 0xC0) == 0x80) ++begin;
    std::size_t end = begin + 2250;
    while ((text[end] & 0xC0) == 0x80) ++end;
    turns.push_back(text.substr(begin, end - begin));
  }
  std::uint64_t count = 0;
  for (auto _ : state) {
    const std::string last = "And now? " + std::to_string(++count);
    std::vector<ChatMessage> messages;
    for (std::size_t i = 0; i < turns.size(); ++i) {
      messages.push_back({i % 2 == 0 ? ChatRole::kUser : ChatRole::kAssistant, turns[i]});
    }
    messages.push_back({ChatRole::kUser, last});
    const EncodeHelp help = {.cache = cached ? &cache : nullptr};
    auto prompt = (*loaded)->Render(messages, {.help = help});
    BALEEN_CHECK(prompt.ok(), "a conversation");
    benchmark::DoNotOptimize(prompt);
  }
  state.SetLabel(cached ? "prefix known" : "anew");
}
BENCHMARK(RenderConversation)->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

// One token at a time, with stop texts and calls looked for.
void ReplyTokens(benchmark::State& state) {
  const std::vector<std::int32_t> ids =
      GetTokenizer()->Encode(Samples()[1].text, ControlText::kAsText).value();
  const std::vector<std::string> stops = {"\n\nUser:", "<stop>", "### Instruction"};
  const auto texts = StopTexts::Make(stops).value();
  const bool all = state.range(0) != 0;
  for (auto _ : state) {
    ReplyStream stream(&GetTokenizer()->table(),
                       {.open_id = GetTokenizer()->reasoning_open_id(),
                        .close_id = GetTokenizer()->reasoning_close_id(),
                        .tool_tokens = all ? GetTokenizer()->tool_tokens() : ToolTokens(),
                        .stop_texts = all ? texts : nullptr});
    for (const std::int32_t id : ids) {
      ReplyDelta delta;
      stream.Push({&id, 1}, &delta);
      benchmark::DoNotOptimize(delta);
    }
  }
  state.SetLabel(all ? "with stop texts and tools" : "plain");
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(ids.size()));
}
BENCHMARK(ReplyTokens)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace baleen::router

int main(int argc, char** argv) {
  // Before any clock runs.
  baleen::router::Samples();
  baleen::router::GetTokenizer();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
