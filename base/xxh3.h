#pragma once

// XXH3 as every checksum of ours takes it: xxhash.h, and where libxxhash was
// built with it (its makefile installs the header only then), the variants
// for AVX2 and AVX-512 that are chosen at run time. The values are the same.
// A state (XXH3_state_t) may live on the stack.

#define XXH_STATIC_LINKING_ONLY
#include "xxhash.h"
#if defined(__x86_64__) && __has_include("xxh_x86dispatch.h")
#include "xxh_x86dispatch.h"
#endif
