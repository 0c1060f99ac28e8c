# Writes OUTPUT, a source with the commit that SOURCE is at; leaves it alone if
# it says so already.
execute_process(
  COMMAND git describe --always --dirty --exclude * --abbrev=12
  WORKING_DIRECTORY ${SOURCE}
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
  ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [=[
#include "tools/bench/machine.h"

namespace bullpen {
const char kCommit[] = "@commit@";
}  // namespace bullpen
]=])
