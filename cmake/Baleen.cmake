# Compiler settings and the three functions every folder uses: baleen_library, baleen_binary, baleen_test.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# -g1: stack traces with lines, without the size and link time of full debug information.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

set(BALEEN_SANITIZE "" CACHE STRING "Sanitizers, as in -fsanitize=")

# Same bits everywhere: an a*b+c is fused only where the source says std::fma (docs/arithmetic.md).
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off;-Wall;-Wextra;-Werror;-Wno-unused-parameter>")
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-Wno-missing-field-initializers;-ffunction-sections;-fdata-sections>")
add_link_options(-Wl,--gc-sections)
if(BALEEN_SANITIZE)
  add_compile_options(-fsanitize=${BALEEN_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${BALEEN_SANITIZE})
  # g++ 12 raises false alarms of these kinds once sanitizer calls are in the code.
  add_compile_options(-Wno-maybe-uninitialized -Wno-stringop-overflow)
endif()

find_program(BALEEN_CCACHE ccache)
if(BALEEN_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${BALEEN_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${BALEEN_CCACHE})
endif()
find_program(BALEEN_MOLD mold)
if(BALEEN_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# baleen_library(name SRCS a.cc ... DEPS other ... [PRIVATE_DEPS third::party ...])
# A static library whose headers are included from the repository root.
function(baleen_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
    target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

# baleen_binary(name SRCS main.cc ... DEPS lib ...): an executable in build/<preset>/bin.
function(baleen_binary name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  if(CMAKE_BUILD_TYPE STREQUAL "Release")
    add_custom_command(TARGET ${name} POST_BUILD COMMAND ${CMAKE_STRIP} $<TARGET_FILE:${name}>)
  endif()
endfunction()

# baleen_test(name SRCS a_test.cc ... DEPS lib ... [LABELS unit] [TIMEOUT 60] [TSAN])
# A GoogleTest program, run by ctest from the repository root. TSAN: also built and run in the tsan preset, which takes only
# tests that link no uninstrumented library. The label `shipped` runs a test in the release preset too.
function(baleen_test name)
  cmake_parse_arguments(ARG "TSAN" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(BALEEN_SANITIZE STREQUAL "thread" AND NOT ARG_TSAN)
    return()
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
  if(BALEEN_SANITIZE STREQUAL "address,undefined")
    # Half the time of a build with sanitizers; the code under test keeps its own options.
    target_compile_options(${name} PRIVATE -O0)
  endif()
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
  add_dependencies(baleen_tests ${name})
  if("shipped" IN_LIST ARG_LABELS)
    add_dependencies(baleen_shipped_tests ${name})
  endif()
endfunction()

add_custom_target(baleen_tests)
add_custom_target(baleen_shipped_tests)

# Adds every sub-folder of the current one that has a CMakeLists.txt.
function(baleen_add_folders)
  file(GLOB lists CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*/CMakeLists.txt)
  foreach(list ${lists})
    get_filename_component(folder ${list} DIRECTORY)
    add_subdirectory(${folder})
  endforeach()
endfunction()

# baleen_bench(name SRCS ... DEPS ...): a google-benchmark program for `make bench`; never part of the tests.
function(baleen_bench name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} EXCLUDE_FROM_ALL ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/bench)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} benchmark::benchmark)
  add_dependencies(baleen_benches ${name})
endfunction()

add_custom_target(baleen_benches)
