// fye_rt._native: checks Python's arguments, then runs the array operations without the interpreter lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Input = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string &message) { throw nb::value_error(message.c_str()); }

// Takes an array without conversion: a silent copy would cost time in the loop, and an output would be lost in it.
template <typename Array>
Array take(nb::handle value, const std::string &name) {
    Array array;
    if (!nb::try_cast(value, array, false)) {
        const std::string writable = std::is_same_v<Array, Output> ? "writable, " : "";
        refuse(name + " must be a " + writable + "C-contiguous float32 array in main memory");
    }
    return array;
}

template <typename Array>
std::string shape_of(const Array &array) {
    std::string text = "(";
    for (std::size_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
    return text + ")";
}

// Arrays to be summed, with references that keep their memory alive while the lock is released.
struct Terms {
    std::vector<Input> arrays;
    std::vector<const float *> data;
};

Terms take_terms(const nb::sequence &values, const Output &out) {
    Terms terms;
    for (nb::handle value : values) {
        const std::string name = "terms[" + std::to_string(terms.arrays.size()) + "]";
        const Input term = take<Input>(value, name);
        if (shape_of(term) != shape_of(out)) {
            refuse(name + " has shape " + shape_of(term) + ", out has " + shape_of(out));
        }
        const float *data = term.data();
        if (data != out.data() && data < out.data() + out.size() && out.data() < data + term.size()) {
            refuse(name + " overlaps out without being out");
        }
        terms.arrays.push_back(term);
        terms.data.push_back(data);
    }
    return terms;
}

void check_count(const Terms &terms, const std::vector<double> &weights) {
    if (terms.data.empty() || terms.data.size() != weights.size()) {
        refuse(std::to_string(terms.data.size()) + " terms and " + std::to_string(weights.size()) +
               " weights: give at least one term, and one weight per term");
    }
}

void weighted_sum(nb::handle out_value, const nb::sequence &term_values, const std::vector<double> &weights) {
    const Output out = take<Output>(out_value, "out");
    const Terms terms = take_terms(term_values, out);
    check_count(terms, weights);
    const nb::gil_scoped_release unlocked;
    fye::weighted_sum(out.data(), terms.data, weights, out.size());
}

void masked_sum(nb::handle out_value, const nb::sequence &term_values, const std::vector<double> &inside,
                const std::vector<double> &outside, nb::handle mask_value) {
    const Output out = take<Output>(out_value, "out");
    const Terms terms = take_terms(term_values, out);
    check_count(terms, inside);
    check_count(terms, outside);
    nb::ndarray<const bool, nb::c_contig, nb::device::cpu> mask;
    if (!nb::try_cast(mask_value, mask, false)) refuse("mask must be a C-contiguous bool array in main memory");
    bool fits = mask.ndim() <= out.ndim();
    for (std::size_t i = 1; fits && i <= mask.ndim(); ++i) fits = mask.shape(mask.ndim() - i) == out.shape(out.ndim() - i);
    if (!fits) refuse("mask has shape " + shape_of(mask) + ", the last dimensions of out are " + shape_of(out));
    const nb::gil_scoped_release unlocked;
    fye::masked_sum(out.data(), terms.data, inside, outside, reinterpret_cast<const std::uint8_t *>(mask.data()),
                    mask.size(), out.size());
}

nb::object to_uint8(nb::handle value) {
    const Input frames = take<Input>(value, "frames");
    // numpy allocates because it requests huge pages: page faults take most of this operation's time
    nb::object pixels = nb::module_::import_("numpy").attr("empty")(value.attr("shape"), "uint8");
    std::uint8_t *data = nb::cast<nb::ndarray<std::uint8_t>>(pixels).data();
    bool valid;
    {
        const nb::gil_scoped_release unlocked;
        valid = fye::to_uint8(data, frames.data(), frames.size());
    }
    if (!valid) refuse("frames contain NaN");
    return pixels;
}

void use_instruction_set(const std::string &name) {
    if (fye::use_instruction_set(name)) return;
    std::string allowed;
    for (const std::string &set : fye::instruction_sets()) allowed += (allowed.empty() ? "" : ", ") + set;
    refuse("this processor has no " + name + "; allowed: " + allowed);
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "Native versions of the array operations in fye_rt.arrays, on a few threads.";
    module.def("weighted_sum", &weighted_sum, "out"_a.none(), "terms"_a, "weights"_a,
               "Write sum_i weights[i] * terms[i] to `out`, summed in float64 and rounded once.\n\n"
               "Args:\n"
               "    out: float32, any shape, C-contiguous; may be one of the terms.\n"
               "    terms: at least one float32 array of out's shape, C-contiguous.\n"
               "    weights: one number per term.\n\n"
               "Raises:\n"
               "    ValueError: an array has another type, layout or shape, or overlaps `out` in part.");
    module.def("masked_sum", &masked_sum, "out"_a.none(), "terms"_a, "inside"_a, "outside"_a, "mask"_a.none(),
               "Write a weighted_sum with weights `inside` where `mask` is true and `outside` elsewhere.\n\n"
               "Args:\n"
               "    mask: bool, of the shape of out's last dimensions, C-contiguous.");
    module.def("to_uint8", &to_uint8, "frames"_a.none(),
               "Return uint8 pixels of `frames`: frames * 255 in float32, clamped to [0, 255] and truncated.\n\n"
               "Args:\n"
               "    frames: float32 in [0, 1], any shape, C-contiguous.\n\n"
               "Raises:\n"
               "    ValueError: the array has another type or layout, or contains NaN.");
    module.def("instruction_sets", &fye::instruction_sets,
               "Return the instruction sets that the loops can use on this processor, fastest first.");
    module.def("instruction_set", &fye::instruction_set, "Return the instruction set in use.");
    module.def("use_instruction_set", &use_instruction_set, "name"_a,
               "Use another instruction set from now on, in all threads; all give the same bits.\n\n"
               "Raises:\n"
               "    ValueError: `name` is not in `instruction_sets`.");
}
