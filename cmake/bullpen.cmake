# The compile options of our own targets, and the functions that declare them.

add_library(bullpen_options INTERFACE)
target_include_directories(bullpen_options INTERFACE ${PROJECT_SOURCE_DIR})
# -ffp-contract=off: the source says where a multiply-add is fused; every
# instruction set must give the same bits (docs/ARCHITECTURE.md, numerics).
target_compile_options(bullpen_options INTERFACE
  -Wall -Wextra $<$<BOOL:${BULLPEN_WERROR}>:-Werror> -ffp-contract=off -fno-math-errno)
if(BULLPEN_SANITIZE)
  target_compile_options(bullpen_options INTERFACE
    -fsanitize=${BULLPEN_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
    # GCC 12 sees these in the standard library's strings when it instruments.
    -Wno-free-nonheap-object -Wno-maybe-uninitialized)
  target_link_options(bullpen_options INTERFACE -fsanitize=${BULLPEN_SANITIZE})
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# bullpen_library(NAME SOURCES a.cc ... DEPS lib ...)
# The DEPS repeat the include arrows of docs/ARCHITECTURE.md.
function(bullpen_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC bullpen_options ${ARG_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE bullpen_options ${ARG_DEPS})
  endif()
endfunction()

# Seconds that a test may take; under a sanitizer it computes many times longer.
if(BULLPEN_SANITIZE)
  set(BULLPEN_TEST_TIMEOUT 1200)
else()
  set(BULLPEN_TEST_TIMEOUT 120)
endif()

# bullpen_test(NAME SOURCES a.cc ... DEPS lib ... [LABELS label ...])
# One GoogleTest program = one ctest. It runs in the source directory.
function(bullpen_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} bullpen_options GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${BULLPEN_TEST_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
