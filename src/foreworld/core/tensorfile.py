"""Tensors on disk, as safetensors: written tensor by tensor, loaded only after their header says what is expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foreworld.core.disk import create, open_regular
from foreworld.core.errors import CheckpointError, NonFinite

LARGEST_HEADER = 4 * 2**20
"""Bytes; about 40 000 tensors."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

FLOATS = {name for dtype, name in _NAMES.items() if dtype.is_floating_point}

Form = tuple[str, tuple[int, ...]]
"""Type, as safetensors names it, and shape."""


def form_of(tensor: Tensor) -> Form:
    """Return the type and shape of a tensor.

    Raises:
        CheckpointError: a type that is not stored.
    """
    if tensor.dtype not in _NAMES:
        raise CheckpointError(f"tensors of type {tensor.dtype} cannot be stored; convert to one of {list(_NAMES)}")
    return _NAMES[tensor.dtype], tuple(tensor.shape)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as one safetensors file, one after another, with no second copy of them all in memory.

    Raises:
        NonFinite: a tensor holds NaN or infinities; nothing is written.
        CheckpointError: a type that is not stored.
    """
    refuse_nonfinite(tensors, str(path.name))
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
    header, end = {}, 0
    for name in order:
        dtype, shape = form_of(tensors[name])
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with create(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            if flat.stride() != (1,):  # a single number that was broadcast counts as contiguous
                flat = flat.clone(memory_format=torch.contiguous_format)
            if flat.numel():
                file.write(flat.view(torch.uint8).numpy().data)


def read_forms(path: Path) -> dict[str, Form]:
    """Read the header of a safetensors file: type and shape of every tensor.

    Raises:
        CheckpointError: no safetensors file, or one that contradicts itself.
    """
    with _opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}


def read_tensors(path: Path, check: Callable[[dict[str, Form]], None]) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: the file.
        check: called with the form of every tensor before any is loaded; raises to refuse.

    Raises:
        CheckpointError: no safetensors file, or one that holds NaN or infinities.
    """
    forms = read_forms(path)
    check(dict(forms))
    with _opened(path) as file:
        found = {name: file.get_tensor(name) for name in forms}
    try:
        refuse_nonfinite(found, str(path))
    except NonFinite as fault:
        raise CheckpointError(f"{fault}; it is damaged or was replaced") from None
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with open_regular(path, CheckpointError) as start:
        size = int.from_bytes(start.read(8), "little")
    if size > LARGEST_HEADER:
        raise CheckpointError(f"{path}: not readable as safetensors (a header of {size} bytes); it is damaged")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as fault:
        raise CheckpointError(f"{path}: not readable as safetensors ({fault}); it is damaged") from fault


def refuse_nonfinite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        NonFinite: names the tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all()):
            raise NonFinite(f"{where}: tensor {name!r} holds NaN or infinite values")
