"""Chains of elementwise operations as one pass over memory, compiled where that is asked for."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch._dynamo.config as dynamo
from torch import Tensor

from foreworld.core.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

VARIANTS = 64
"""Of one function, by precision, number of dimensions and what of its sizes is one; torch gives up at 8."""

SMALL = 16_384
"""Elements of the first argument below which calling compiled code takes longer than it saves."""

_fused = False


@contextmanager
def fused(on: bool = True) -> Iterator[None]:
    """Run functions marked `fusible` compiled: worth its minute of compiling in a training, not in a few calls.

    Args:
        on: false turns it off again inside of an outer block.

    Example:
        >>> import torch, foreworld as fw
        >>> with fw.fused(False):
        ...     fw.symlog(torch.zeros(1))
        tensor([0.])
    """
    global _fused
    before, _fused = _fused, on
    try:
        yield
    finally:
        _fused = before


def fusible(function: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """Mark a pure function of tensors without a gradient of its own, which `fused` may compile.

    Args:
        function: of tensors of a fixed number of dimensions, whose sizes may change from call to call, and of numbers.

    Returns:
        The same function; inside `fused` its compiled form.
    """
    compiled = functools.cache(lambda: torch.compile(function, fullgraph=True, dynamic=False))

    @functools.wraps(function)
    def call(first: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        if not _fused or first.numel() < SMALL:
            return function(first, *args, **kwargs)
        return compiled()(first, *args, **kwargs)

    return call


@functools.cache
def prepare_compiler() -> None:
    """Give this process a compiler cache of its own, and see that there is a compiler at all.

    A process that is killed while it compiles leaves half a library in its cache, which would stop every later one.

    Raises:
        ConfigError: nothing can be compiled on this machine.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="foreworld-inductor-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(4))
    except Exception as fault:  # whatever the compiler objects to
        first = str(fault).strip().partition("\n")[0]
        raise ConfigError(
            f"nothing can be compiled here: {first:.300}; install a C++ compiler or leave compiling off"
        ) from fault
