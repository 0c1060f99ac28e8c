#pragma once

#include "engine/model/gguf_architectures.h"

namespace bullpen {

// Refuses, by name and value, a key that changes what a model computes unless a
// mapping has read it or its value changes nothing. Call it after the mapping.
void RefuseUnreadKeys(GgufMapping& mapping);

}  // namespace bullpen
