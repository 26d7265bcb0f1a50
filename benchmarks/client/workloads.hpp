// The loads, and what is printed of them.
#pragma once

#include "loop.hpp"
#include "options.hpp"

namespace bench {

void run(Loop& loop, const Options& options);

}  // namespace bench
