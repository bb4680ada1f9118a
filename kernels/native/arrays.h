// The array operations of the denoising loop, on plain memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fye {

// out[i] = sum over j of weights[j] * terms[j][i], for i < size: products and sums in double in the order of the
// terms, rounded once to float. `out` may be one of the terms; it must not overlap one otherwise.
void weighted_sum(float *out, const std::vector<const float *> &terms, const std::vector<double> &weights,
                  std::size_t size);

// The same with weights `inside` where mask[i % plane] is not 0, and `outside` elsewhere.
void masked_sum(float *out, const std::vector<const float *> &terms, const std::vector<double> &inside,
                const std::vector<double> &outside, const std::uint8_t *mask, std::size_t plane, std::size_t size);

// out[i] = frames[i] * 255 in float, clamped to [0, 255] and truncated. False if there was a NaN (out is then unusable).
bool to_uint8(std::uint8_t *out, const float *frames, std::size_t size);

// The sets of instructions that the loops were compiled for and this processor has, the fastest first, which is in use
// until another one is chosen: by its name, for all threads. False if it is none of them.
std::vector<std::string> instruction_sets();
std::string instruction_set();
bool use_instruction_set(const std::string &name);

}  // namespace fye
