# How the project's libraries and tests are built: one way, in one place.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# Warnings are errors in our code only (generated code and system headers are not
# ours), and not where a user builds: other optimisations and other compilers see
# other things.
add_library(headcount_options INTERFACE)
target_compile_options(headcount_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wshadow -Wvla -Walloca
    -Wsign-compare>)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(headcount_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
target_compile_definitions(headcount_options INTERFACE
  HEADCOUNT_VERSION="${PROJECT_VERSION}")
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(headcount_options INTERFACE
    -Wthread-safety -Wno-unused-command-line-argument)
endif()

# GCC 12 sees overlapping copies in std::string that cannot happen
# (gcc.gnu.org/PR105651): at -O3, and in instrumented code. Other builds keep the
# warning.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND
   (HEADCOUNT_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Release"))
  target_compile_options(headcount_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()

# A joined source is a header to GCC, which then takes the types of its anonymous
# namespace for a mistake.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND HEADCOUNT_JOIN_SOURCES)
  target_compile_options(headcount_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endif()

# Everything that ends up in one binary has the same sanitizers, generated code
# included, so these are not part of headcount_options. Checks in every unrolled
# step of a kernel make -O2 slow to compile, by minutes a file.
if(HEADCOUNT_SANITIZE)
  add_compile_options(-O1 -fsanitize=${HEADCOUNT_SANITIZE}
                      -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${HEADCOUNT_SANITIZE})
  # AddressSanitizer sees what these three look for.
  if(HEADCOUNT_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize=null,object-size,vptr)
  endif()
endif()
# Debian's gRPC, protobuf and Abseil are not built with ThreadSanitizer, and
# protobuf's classes have another layout where it shows. Only libstdc++ is told,
# and tests that ask for HEADCOUNT_THREAD_SANITIZER.
if(HEADCOUNT_SANITIZE STREQUAL "thread")
  add_compile_options(-U__SANITIZE_THREAD__ -D_GLIBCXX_TSAN=1
                      -DHEADCOUNT_THREAD_SANITIZER=1)
endif()
if(HEADCOUNT_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# headcount_library(base SRCS check.cc ... DEPS absl::status ...)
# A static library headcount_<name>. src/ and the repository root are the
# include roots.
function(headcount_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(headcount_${name} STATIC ${ARG_SRCS})
  target_include_directories(headcount_${name} PUBLIC
    ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(headcount_${name}
    PUBLIC ${ARG_DEPS} PRIVATE headcount_options)
  set_target_properties(headcount_${name} PROPERTIES
    UNITY_BUILD ${HEADCOUNT_JOIN_SOURCES})
endfunction()

# How a test's own code is compiled: what it calls does the work. What it may do
# wrong itself, and what it has of headers, is left to AddressSanitizer: other
# checks take half of the time to compile it.
function(headcount_test_code target)
  target_include_directories(${target} PRIVATE
    ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${target} PRIVATE
    HEADCOUNT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${target} PRIVATE
    GTest::gmock GTest::gtest headcount_options)
  # One set of options for all, since they share a file of headers; see PR105651
  # above. gRPC asks for -pthread.
  if(HEADCOUNT_JOIN_SOURCES)
    set(effort -O1)
    if(HEADCOUNT_SANITIZE)
      set(effort -O0 -fno-sanitize=undefined)
    endif()
    target_compile_options(${target} PRIVATE ${effort} -pthread
      "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow>")
  endif()
endfunction()

# A file of GoogleTest's, Abseil's and the standard library's headers, parsed once
# for all tests.
if(HEADCOUNT_JOIN_SOURCES AND HEADCOUNT_TESTS)
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/test_headers.cc CONTENT "\n")
  add_library(headcount_test_headers OBJECT
              ${PROJECT_BINARY_DIR}/test_headers.cc)
  headcount_test_code(headcount_test_headers)
  # As in the executables that share it.
  set_target_properties(headcount_test_headers PROPERTIES
    POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(headcount_test_headers PRIVATE -fPIE)
  target_precompile_headers(headcount_test_headers PRIVATE
    <gmock/gmock.h> <gtest/gtest.h> <algorithm> <functional> <map> <memory>
    <optional> <random> <string> <vector> <absl/status/status.h>
    <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/types/span.h>)
endif()

# headcount_test(heads_layout_test SRCS layout_test.cc DEPS headcount_heads
#                LABELS quick)
# A GoogleTest binary with one ctest entry. Label `quick` (the default) is for
# what ends in a few seconds; `full` for the rest.
function(headcount_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS quick)
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest_main)
  headcount_test_code(${name})
  if(TARGET headcount_test_headers)
    target_precompile_headers(${name} REUSE_FROM headcount_test_headers)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600)
endfunction()

# headcount_see_plain_accesses(target [sources])
# Makes the emulator of GPUs (tests/simt) see the plain loads and stores of the
# target, or of these sources of it, not only those that go through ptx.h.
# Sanitizers have hooks of their own.
function(headcount_see_plain_accesses target)
  if(HEADCOUNT_SANITIZE OR HEADCOUNT_FUZZ)
    return()
  endif()
  if(ARGN)
    set_source_files_properties(${ARGN} PROPERTIES
      COMPILE_OPTIONS -fsanitize=thread)
  else()
    target_compile_options(${target} PRIVATE -fsanitize=thread)
  endif()
  set_target_properties(${target} PROPERTIES DISABLE_PRECOMPILE_HEADERS ON)
  target_link_libraries(${target} PUBLIC headcount_simt_plain_accesses)
endfunction()

# headcount_benchmark(matmul_benchmark SRCS ... DEPS ...)
function(headcount_benchmark name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE
    ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE
    ${ARG_DEPS} benchmark::benchmark headcount_options)
endfunction()

# headcount_fuzzer(safetensors_fuzzer SRCS ... DEPS ...)
# A libFuzzer binary; only in the fuzz preset.
function(headcount_fuzzer name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE
    ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} headcount_options)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()
