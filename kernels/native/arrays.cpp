#include "arrays.h"

#include <algorithm>
#include <atomic>

#include "parallel.h"

#if defined(__GNUC__)
#define FYE_INLINE inline __attribute__((always_inline))
#else
#define FYE_INLINE inline
#endif

namespace fye {
namespace {

FYE_INLINE void add_weighted(double *sum, const float *values, double weight, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) sum[i] += weight * double(values[i]);
}

FYE_INLINE void add_masked(double *sum, const float *values, const std::uint8_t *mask, double inside, double outside,
                           std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) sum[i] += (mask[i] ? inside : outside) * double(values[i]);
}

FYE_INLINE bool truncate(std::uint8_t *pixels, const float *values, std::size_t count) {
    int nan = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const float value = values[i] * 255.0f;
        const float positive = value > 0.0f ? value : 0.0f;  // also for a NaN: the cast stays defined
        pixels[i] = std::uint8_t(int(positive < 255.0f ? positive : 255.0f));
        nan |= value != value ? 1 : 0;
    }
    return !nan;
}

// The loops above, compiled for one instruction set. Products and sums are rounded separately, so all sets give the
// same bits. On two cores, to_uint8 converts 16 frames of 512x512 in 2.3 ms with AVX2, 4.1 ms with SSE2 and 25 ms with
// numpy (bench/results/arrays.json).
struct Loops {
    const char *instructions;
    void (*add_weighted)(double *, const float *, double, std::size_t);
    void (*add_masked)(double *, const float *, const std::uint8_t *, double, double, std::size_t);
    bool (*truncate)(std::uint8_t *, const float *, std::size_t);
};

#define FYE_LOOPS(NAME, COMPILED)                                                                                     \
    struct NAME {                                                                                                     \
        COMPILED static void weighted(double *sum, const float *values, double weight, std::size_t count) {           \
            add_weighted(sum, values, weight, count);                                                                 \
        }                                                                                                             \
        COMPILED static void masked(double *sum, const float *values, const std::uint8_t *mask, double inside,        \
                                    double outside, std::size_t count) {                                              \
            add_masked(sum, values, mask, inside, outside, count);                                                    \
        }                                                                                                             \
        COMPILED static bool pixels(std::uint8_t *to, const float *values, std::size_t count) {                       \
            return truncate(to, values, count);                                                                       \
        }                                                                                                             \
        static constexpr Loops loops{#NAME, weighted, masked, pixels};                                                \
    };

FYE_LOOPS(generic, )
#if defined(__x86_64__) && defined(__GNUC__)
FYE_LOOPS(avx2, __attribute__((target("avx2"))))
FYE_LOOPS(avx512f, __attribute__((target("avx512f"))))
#endif

// Loops that this processor can run, fastest first.
std::vector<const Loops *> available() {
    std::vector<const Loops *> supported;
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) supported.push_back(&avx512f::loops);
    if (__builtin_cpu_supports("avx2")) supported.push_back(&avx2::loops);
#endif
    supported.push_back(&generic::loops);
    return supported;
}

std::atomic<const Loops *> chosen{available().front()};

}  // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Loops *loops : available()) names.emplace_back(loops->instructions);
    return names;
}

std::string instruction_set() { return chosen.load()->instructions; }

bool use_instruction_set(const std::string &name) {
    for (const Loops *loops : available()) {
        if (name == loops->instructions) {
            chosen = loops;
            return true;
        }
    }
    return false;
}

void weighted_sum(float *out, const std::vector<const float *> &terms, const std::vector<double> &weights,
                  std::size_t size) {
    constexpr std::size_t block = 1024;  // 8 KiB of double sums stay in the first-level cache
    const std::size_t grain = (std::size_t(1) << 19) / std::max<std::size_t>(1, terms.size()) + block;
    const Loops &loops = *chosen.load();
    parallel_for(size, grain, [&](std::size_t begin, std::size_t end) {
        double sum[block];
        for (std::size_t start = begin; start < end; start += block) {
            const std::size_t count = std::min(block, end - start);
            std::fill_n(sum, count, 0.0);
            for (std::size_t j = 0; j < terms.size(); ++j) {
                loops.add_weighted(sum, terms[j] + start, weights[j], count);
            }
            // a block is written only after all its terms were read, so out may be a term
            for (std::size_t i = 0; i < count; ++i) out[start + i] = float(sum[i]);
        }
    });
}

void masked_sum(float *out, const std::vector<const float *> &terms, const std::vector<double> &inside,
                const std::vector<double> &outside, const std::uint8_t *mask, std::size_t plane, std::size_t size) {
    constexpr std::size_t block = 1024;
    const std::size_t grain = (std::size_t(1) << 19) / std::max<std::size_t>(1, terms.size()) + block;
    const Loops &loops = *chosen.load();
    parallel_for(size, grain, [&](std::size_t begin, std::size_t end) {
        double sum[block];
        for (std::size_t start = begin, count; start < end; start += count) {
            const std::size_t place = start % plane;
            count = std::min({block, end - start, plane - place});
            std::fill_n(sum, count, 0.0);
            for (std::size_t j = 0; j < terms.size(); ++j) {
                loops.add_masked(sum, terms[j] + start, mask + place, inside[j], outside[j], count);
            }
            for (std::size_t i = 0; i < count; ++i) out[start + i] = float(sum[i]);
        }
    });
}

bool to_uint8(std::uint8_t *out, const float *frames, std::size_t size) {
    const Loops &loops = *chosen.load();
    std::atomic<bool> valid{true};
    parallel_for(size, std::size_t(1) << 19, [&](std::size_t begin, std::size_t end) {
        if (!loops.truncate(out + begin, frames + begin, end - begin)) valid = false;
    });
    return valid;
}

}  // namespace fye
