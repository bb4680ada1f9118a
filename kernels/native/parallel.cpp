#include "parallel.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

namespace fye {

void parallel_for(std::size_t size, std::size_t grain, const std::function<void(std::size_t, std::size_t)> &body) {
    // these operations are bound by memory: more than eight threads only take cores from the networks
    const std::size_t cores = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 8);
    const std::size_t parts = std::clamp<std::size_t>(size / grain, 1, cores);
    // parts start on a multiple of 64 elements, so that no two threads write into one cache line
    const std::size_t step = ((size + parts - 1) / parts + 63) / 64 * 64;

    std::vector<std::thread> threads;
    threads.reserve(parts);
    std::size_t begin = 0;
    for (std::size_t part = 1; part < parts && begin + step < size; ++part, begin += step) {
        try {
            threads.emplace_back(body, begin, begin + step);
        } catch (const std::system_error &) {  // the system grants no more threads: the caller does the rest
            break;
        }
    }
    if (begin < size) body(begin, size);
    for (std::thread &thread : threads) thread.join();
}

}  // namespace fye
