"""Fetch an element of an array into the processor's cache before compiled code needs it.

The loop of a pool reads five arrays at ten or more places in turn, more than processors follow by
themselves. It takes a quarter less time with this (`benchmarks/sharing_speed.py`).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

READ, KEEP, DATA = 0, 3, 1  # arguments of LLVM's prefetch: for reading, in all caches, as data


def prefetch(array: np.ndarray, index: int) -> None:
    """Fetch array[index], which may lie behind the end. Without compilation, this does nothing."""


@intrinsic
def _fetch(typing: Any, array: Any, index: Any) -> Any:
    """The instruction."""

    def generate(context, builder, signature, arguments):
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(values.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(fetch, [address, whole(READ), whole(KEEP), whole(DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@overload(prefetch, strict=False)
def _compiled(array: Any, index: Any) -> Any:
    return lambda array, index: _fetch(array, index)
