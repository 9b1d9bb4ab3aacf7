// The reference device: host memory and the plain C++ ops. Needs AVX2 and FMA (x86-64-v3).
#pragma once

#include <cstddef>
#include <memory>

#include "worker/device/device.h"

namespace baleen::worker {

// `fill` is what fresh buffers hold; tests fill them with 0xff (NaN in every format) to show that
// nothing depends on it.
std::unique_ptr<Device> MakeReferenceDevice(std::byte fill = std::byte{0});

}  // namespace baleen::worker
