"""Philox as one C++ function.

Spelled out, ten rounds of 32 x 32 bit products are some 130 operations of a graph, which Inductor
writes out for each reader, as vectors, as scalars and as a tail: half of what it takes to compile a
step. Here they are a function of twenty lines, in the same file as the kernels, that a graph calls
as it calls a product of matrices.

Only integers, and numbers that are exact whatever the compiler does, are made here.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...random._bits import _host
from ...random._bits._philox_operators import (
    Result,
    around_rounds,
    expanded_in_planes,
    shape_of_rounds,
)
from ...random._constants import MULTIPLIERS, ROUNDS, WEYL

LOGGER = logging.getLogger("purepyro.jit")

# Kernels of one graph that are given to several threads have as many numbers at least.
_PARALLEL = 1 << 15
_DIMENSIONS = 16

_FUNCTION = """
#include <cstdint>
#include <type_traits>

namespace purepyro {

// The dimensions of a draw, outermost first, and how far apart its keys and indices lie in each.
struct Walk {
    int64_t dims = 0;
    int64_t size[DIMENSIONS], key[DIMENSIONS], index[DIMENSIONS];

    void add(int64_t count, int64_t of_key, int64_t of_index) {
        if (count == 1) return;
        if (dims && key[dims - 1] == of_key * count && index[dims - 1] == of_index * count) {
            size[dims - 1] *= count;
            key[dims - 1] = of_key;
            index[dims - 1] = of_index;
            return;
        }
        size[dims] = count;
        key[dims] = of_key;
        index[dims] = of_index;
        ++dims;
    }

    int64_t count() const {
        int64_t found = 1;
        for (int64_t d = 0; d < dims; ++d) found *= size[d];
        return found;
    }
};

enum Result { RESULTS };

constexpr int WIDTH = 16;

template <int result, typename Number>
void philox(
    Number* out, const int64_t* keys, int64_t second, const int64_t* indices, const Walk& walk,
    int64_t begin, int64_t end, int64_t total) {
    int64_t at[DIMENSIONS];
    int64_t rest = begin;
    for (int64_t d = walk.dims - 1; d >= 0; --d) {
        at[d] = rest % walk.size[d];
        rest /= walk.size[d];
        keys += at[d] * walk.key[d];
        indices += at[d] * walk.index[d];
    }
    for (int64_t start = begin; start < end; start += WIDTH) {
        const int here = end - start < WIDTH ? end - start : WIDTH;
        uint32_t key0[WIDTH] = {}, key1[WIDTH] = {};
        uint32_t w0[WIDTH] = {}, w1[WIDTH] = {}, w2[WIDTH] = {}, w3[WIDTH] = {};
        for (int j = 0; j < here; ++j) {
            const uint64_t seed = keys[0];
            const uint64_t counter = (uint64_t)keys[second] + (uint64_t)indices[0];
            key0[j] = seed;
            key1[j] = seed >> 32;
            w0[j] = counter;
            w1[j] = counter >> 32;
            for (int64_t d = walk.dims - 1; d >= 0; --d) {
                keys += walk.key[d];
                indices += walk.index[d];
                if (++at[d] < walk.size[d]) break;
                at[d] = 0;
                keys -= walk.key[d] * walk.size[d];
                indices -= walk.index[d] * walk.size[d];
            }
        }
        for (uint32_t turn = 0; turn < TURNS; ++turn) {
            #pragma omp simd
            for (int j = 0; j < WIDTH; ++j) {
                const uint64_t low = (uint64_t)w0[j] * FIRSTU;
                const uint64_t high = (uint64_t)w2[j] * SECONDU;
                w0[j] = (uint32_t)(high >> 32) ^ w1[j] ^ (key0[j] + turn * STEP0U);
                w1[j] = (uint32_t)high;
                w2[j] = (uint32_t)(low >> 32) ^ w3[j] ^ (key1[j] + turn * STEP1U);
                w3[j] = (uint32_t)low;
            }
        }
        for (int j = 0; j < here; ++j) {
            const int64_t i = start + j;
            if (result == words) {
                out[4 * i] = w0[j];
                out[4 * i + 1] = w1[j];
                out[4 * i + 2] = w2[j];
                out[4 * i + 3] = w3[j];
            } else if (result == wide_words) {
                out[2 * i] = (uint64_t)w0[j] << 32 | w1[j];
                out[2 * i + 1] = (uint64_t)w2[j] << 32 | w3[j];
            } else if (result == keys_) {
                out[i] = (uint64_t)w1[j] << 32 | w0[j];
                out[total + i] = (uint64_t)w3[j] << 32 | w2[j];
            } else if (result == wide_uniforms) {
                out[i] = w0[j] * 0x1p-32 + (w1[j] * 0x1p-64 + 0x1p-65);
                out[total + i] = w2[j] * 0x1p-32 + (w3[j] * 0x1p-64 + 0x1p-65);
            } else {
                out[i] = (float)w0[j] * 0x1p-32f + 0x1p-33f;
                out[total + i] = (float)w1[j] * 0x1p-32f + 0x1p-33f;
                if (result == uniforms) {
                    out[2 * total + i] = (float)w2[j] * 0x1p-32f + 0x1p-33f;
                    out[3 * total + i] = (float)w3[j] * 0x1p-32f + 0x1p-33f;
                }
            }
        }
    }
}

template <int result>
void philox_of(
    void* out, const int64_t* keys, int64_t second, const int64_t* indices, const Walk& walk) {
    using Real = std::conditional_t<result == wide_uniforms, double, float>;
    using Number = std::conditional_t<result <= keys_, int64_t, Real>;
    const int64_t total = walk.count();
    if (total == 0) return;
    Number* numbers = static_cast<Number*>(out);
    if (total < PARALLEL || THREADS == 1) {
        philox<result>(numbers, keys, second, indices, walk, 0, total, total);
        return;
    }
    const int64_t share = (total + THREADS - 1) / THREADS;
    #pragma omp parallel for num_threads(THREADS)
    for (int64_t part = 0; part < THREADS; ++part) {
        const int64_t begin = part * share;
        const int64_t end = begin + share < total ? begin + share : total;
        if (begin < end) philox<result>(numbers, keys, second, indices, walk, begin, end, total);
    }
}

}  // namespace purepyro
"""

# What a graph calls, with handles of tensors in torch's own C interface.
_CALL = """
template <int result>
AOTITorchError aoti_torch_purepyro_philox(
    AtenTensorHandle out, AtenTensorHandle key, AtenTensorHandle index) {
    void *found, *keys, *indices;
    int64_t keys_dims, index_dims;
    int64_t *key_sizes, *key_strides, *index_sizes, *index_strides;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(out, &found));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(key, &keys));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(index, &indices));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(key, &keys_dims));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(index, &index_dims));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(key, &key_sizes));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(key, &key_strides));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(index, &index_sizes));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(index, &index_strides));
    purepyro::Walk walk;
    // From the last dimension, of which a key has one: the batch of keys lies before it.
    const int64_t last = (keys_dims > index_dims ? keys_dims : index_dims) - 1;
    for (int64_t back = last; back >= 0; --back) {
        const int64_t k = keys_dims - 1 - back, i = index_dims - 1 - back;
        const int64_t of_key = back > 0 && k >= 0 ? key_sizes[k] : 1;
        const int64_t of_index = i >= 0 ? index_sizes[i] : 1;
        walk.add(
            of_key == 1 ? of_index : of_key,
            of_key == 1 ? 0 : key_strides[k],
            of_index == 1 ? 0 : index_strides[i]);
    }
    purepyro::philox_of<result>(
        found, static_cast<int64_t*>(keys), key_strides[keys_dims - 1],
        static_cast<int64_t*>(indices), walk);
    return AOTI_TORCH_SUCCESS;
}
"""

# What the check calls: some blocks of each of some keys.
_CHECK = """
extern "C" void purepyro_check(
    int result, void* out, const int64_t* keys, int64_t number, const int64_t* indices,
    int64_t count) {
    purepyro::Walk walk;
    walk.add(number, 2, 0);
    walk.add(count, 0, 1);
    switch (result) { CASES }
}
"""

_RESULTS = get_args(Result)
_IN_PROGRESS: ContextVar[bool] = ContextVar("purepyro_philox_as_a_function", default=False)


@contextmanager
def as_a_function() -> Iterator[None]:
    """A stretch of code that compiles Philox for the CPU as a function, if that can be had."""
    token = _IN_PROGRESS.set(True)
    try:
        yield
    finally:
        _IN_PROGRESS.reset(token)


def decomposed(key: Tensor, index: Tensor, kind: Any) -> Tensor:
    """What becomes of a draw in a graph."""
    # It is asked here, not earlier: what is found on disk needs no check.
    if _IN_PROGRESS.get() and key.device.type == "cpu" and _works():
        return around_rounds(key, index, kind)
    return expanded_in_planes(key, index, kind)


def lowered(key: Any, index: Any, result: Result) -> Any:
    """The same in Inductor's own terms: a call, whose result is a buffer."""
    ir: Any = import_module("torch._inductor.ir")
    inputs = [ir.ExternKernel.realize_input(each) for each in (key, index)]
    for each in inputs:
        each.freeze_layout()
    batch, of_index = (tuple(map(int, each.get_size())) for each in (key, index))
    dtype, shape = shape_of_rounds(batch[:-1], of_index, result)
    layout = ir.FixedLayout(key.get_device(), dtype, list(shape))
    name = f"aoti_torch_purepyro_philox<purepyro::{_in_cpp(result)}>"
    return ir.TensorBox.create(ir.ExternKernelOut(layout, inputs, cpp_kernel_name=name))


def source() -> str:
    """The function that graphs call, in C++."""
    return _function() + _CALL


def _function() -> str:
    constants = {
        "DIMENSIONS": _DIMENSIONS,
        "RESULTS": ", ".join(map(_in_cpp, _RESULTS)),
        "TURNS": ROUNDS,
        "FIRST": MULTIPLIERS[0],
        "SECOND": MULTIPLIERS[1],
        "STEP0": WEYL[0],
        "STEP1": WEYL[1],
        "PARALLEL": _PARALLEL,
        "THREADS": torch.get_num_threads(),
    }
    found = _FUNCTION
    for name, value in constants.items():
        found = found.replace(name, str(value))
    return found


def _in_cpp(result: str) -> str:
    """The name of a result in C++."""
    return "keys_" if result == "keys" else result


@cache
def _works() -> bool:
    """Whether the function can be had, and gives the bits that it should."""
    try:
        right = _gives_our_bits()
    except Exception as error:  # no such compiler, or another Inductor
        LOGGER.info("Philox is compiled operation by operation: %s", error)
        return False
    if not right:
        LOGGER.warning("Philox is compiled operation by operation: its C++ gives other bits")
    return right


def _gives_our_bits() -> bool:
    ir: Any = import_module("torch._inductor.ir")
    for name in "ExternKernelOut", "FixedLayout", "TensorBox":
        getattr(ir, name)
    compiler: Any = import_module("torch._inductor.codecache").CppCodeCache
    cases = "".join(
        f"case {place}: purepyro::philox_of<{place}>(out, keys, 1, indices, walk); break;"
        for place in range(len(_RESULTS))
    )
    check = compiler.load(_function() + _CHECK.replace("CASES", cases)).purepyro_check
    # Sums that carry and wrap, more blocks than a turn of the function takes, and not a multiple.
    pairs = [[-(2**63) + 12345, -3], [7, 2**32 - 9], [-1, 2**63 - 1]]
    keys = np.array(pairs, dtype=np.int64)
    index = np.array([*range(16), 2**63 - 1, -1, 2**32 - 1], dtype=np.int64)
    seeds, offsets = keys.view(np.uint64).T
    even, odd = _host.expand(seeds, offsets[:, None] + index.view(np.uint64))
    for place, result in enumerate(_RESULTS):
        wanted = _made(result, even[0], odd[0], even[1], odd[1])
        found = np.zeros_like(wanted)
        check(
            place,
            found.ctypes,
            keys.ctypes,
            ctypes.c_int64(len(keys)),
            index.ctypes,
            ctypes.c_int64(len(index)),
        )
        if not np.array_equal(found, wanted):
            return False
    return True


def _made(result: Result, *words: NDArray[np.uint32]) -> NDArray[Any]:
    """A result of the function, by NumPy: a graph is being traced, and torch with it."""
    w0, w1, w2, w3 = (word.astype(np.uint64) for word in words)
    half = np.uint64(32)
    if result == "words":
        return np.stack([w0, w1, w2, w3], axis=-1)
    if result == "wide_words":
        return np.stack([w0 << half | w1, w2 << half | w3], axis=-1)
    if result == "keys":
        return np.stack([w1 << half | w0, w3 << half | w2])
    if result == "wide_uniforms":
        return np.stack([a * 2.0**-32 + (b * 2.0**-64 + 2.0**-65) for a, b in ((w0, w1), (w2, w3))])
    wanted = words[:2] if result == "two_uniforms" else words
    scale, half_step = np.float32(2.0**-32), np.float32(2.0**-33)
    return np.stack([word.astype(np.float32) * scale + half_step for word in wanted])
