#pragma once

// Marks a function of plain loops that is worth vectors: it is compiled for
// each of these levels of x86-64, and the best one that the machine has is
// taken as the program starts. What it calls is compiled into it, as far as
// that can be. The compiler contracts nothing (-ffp-contract=off) and reorders
// no sum, so all give the same bits. A sanitizer's own code would run before it
// is ready.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    !defined(__x86_64__) || defined(__clang__)
#define BULLPEN_VECTOR_CLONES
#else
#define BULLPEN_VECTOR_CLONES                                                  \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), \
                 flatten))
#endif
