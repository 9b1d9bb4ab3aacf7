// Fuzz target: any tokenizer.json. It loads or is refused with a reason; one that loads encodes
// texts into ids that it has, and gives byte-level texts back as they were.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "observability/base/check.h"
#include "router/text/tokenizer.h"
#include "router/text/utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::router::ControlText;
using baleen::router::Tokenizer;

// Of this process; gone with it.
class ScratchDir {
 public:
  ScratchDir() {
    std::string name = (std::filesystem::temp_directory_path() / "baleen_fuzz_XXXXXX").string();
    BALEEN_CHECK(mkdtemp(name.data()) != nullptr, "a directory for the file");
    path_ = name;
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  ~ScratchDir() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ScratchDir dir;
  std::ofstream(dir.path() / "tokenizer.json", std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  const auto tokenizer = Tokenizer::Load(dir.path().string());
  if (!tokenizer.ok()) {
    BALEEN_CHECK(!tokenizer.status().message().empty(), "a reason");
    return 0;
  }
  for (const char* text :
       {"", "Hello, world! 123\n\n  x", "你好 <think></think><s> 👍🏽", " \t\r\n"}) {
    for (const ControlText control : {ControlText::kAsText, ControlText::kAsTokens}) {
      const auto ids = (*tokenizer)->Encode(text, control);
      if (!ids.ok()) continue;
      BALEEN_CHECK(ids->empty() || (*tokenizer)->CheckIds(*ids).ok(), "ids that it has");
      BALEEN_CHECK(baleen::router::IsValidUtf8((*tokenizer)->Decode(*ids)), "text");
    }
  }
  return 0;
}
