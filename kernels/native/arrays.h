// Array operations of the denoising loop, on plain memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fye {

// out[i] = sum over j of weights[j] * terms[j][i], for i < size. Products and sums are doubles, added in the order of
// the terms and rounded once to float. `out` may be one of the terms, but must not overlap a term in part.
void weighted_sum(float *out, const std::vector<const float *> &terms, const std::vector<double> &weights,
                  std::size_t size);

// weighted_sum with weights `inside` where mask[i % plane] is not 0, and `outside` elsewhere.
void masked_sum(float *out, const std::vector<const float *> &terms, const std::vector<double> &inside,
                const std::vector<double> &outside, const std::uint8_t *mask, std::size_t plane, std::size_t size);

// out[i] = frames[i] * 255 in float, clamped to [0, 255] and truncated. Returns false on a NaN; `out` is then unusable.
bool to_uint8(std::uint8_t *out, const float *frames, std::size_t size);

// Instruction sets that the loops were compiled for and this processor supports, fastest first. The first is in use
// until use_instruction_set chooses another by name, for all threads; it returns false for an unknown name.
std::vector<std::string> instruction_sets();
std::string instruction_set();
bool use_instruction_set(const std::string &name);

}  // namespace fye
