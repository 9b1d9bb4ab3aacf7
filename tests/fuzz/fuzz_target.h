// The entry point of every fuzz target: libFuzzer calls it with what it invents, replay_main.cc
// with the files of the corpus.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
