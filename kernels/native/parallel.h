// Splits a range among a few threads.
#pragma once

#include <cstddef>
#include <functional>

namespace fye {

// Calls body(begin, end) on disjoint parts that cover [0, size): at most one part per `grain` elements, and at most
// eight parts. Returns when all are done. `body` must not throw.
void parallel_for(std::size_t size, std::size_t grain, const std::function<void(std::size_t, std::size_t)> &body);

}  // namespace fye
