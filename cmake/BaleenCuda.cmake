# CUDA 13 for sm_90a, and NCCL. Included when BALEEN_CUDA is on; a GPU is not needed to build.

# The rest of the project's C++ options are not nvcc's. Same bits: no fused multiply-add but where the source says so.
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a-real)
endif()
enable_language(CUDA)
# CMake 3.25 does not know that CUDA 13 has C++20, and leaves the option out.
foreach(kind STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION "-std=c++20")
  endif()
endforeach()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-ffunction-sections,-fdata-sections>")

find_package(CUDAToolkit 13 REQUIRED)
find_path(BALEEN_NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(BALEEN_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
# Headers only: the worker loads the library at run time. Tests link it, to have it at hand.
add_library(nccl_headers INTERFACE)
target_include_directories(nccl_headers SYSTEM INTERFACE ${BALEEN_NCCL_INCLUDE_DIR})

# What `make cuda` builds.
add_custom_target(baleen_cuda)
