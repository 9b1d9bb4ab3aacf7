// Runs a fuzz target over the files of the given folders, each also cut short at every length of
// its first bytes: the corpus as an ordinary test, for compilers without libFuzzer.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

int main(int argc, char** argv) {
  constexpr std::size_t kCutsMax = 512;
  std::size_t files = 0;
  std::size_t runs = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream stream(entry.path(), std::ios::binary);
      const std::vector<char> bytes((std::istreambuf_iterator<char>(stream)), {});
      const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
      LLVMFuzzerTestOneInput(data, bytes.size());
      for (std::size_t cut = 0; cut < std::min(bytes.size(), kCutsMax); ++cut) {
        // A copy of its own, so that AddressSanitizer sees a read beyond the cut.
        const std::vector<std::uint8_t> part(data, data + cut);
        LLVMFuzzerTestOneInput(part.data(), part.size());
        ++runs;
      }
      ++files;
      ++runs;
    }
  }
  std::printf("%zu files, %zu runs\n", files, runs);
  return files > 0 ? 0 : 1;
}
