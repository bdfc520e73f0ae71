from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foreworld.core.errors import SpecError
from foreworld.report.png import data_uri, encode


def decode(png: bytes) -> np.ndarray:
    """Decode a PNG by the letter of the standard, one byte at a time."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
        chunks[name], at = data, at + 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 2: 3}[colour]
    raw, row_bytes = zlib.decompress(chunks[b"IDAT"]), width * channels
    assert len(raw) == height * (row_bytes + 1)
    above, rows = [0] * row_bytes, []
    for y in range(height):
        kind, *line = raw[y * (row_bytes + 1) : (y + 1) * (row_bytes + 1)]
        for x in range(row_bytes):
            left = line[x - channels] if x >= channels else 0
            line[x] = (line[x] + {0: 0, 1: left, 2: above[x]}[kind]) % 256
        above = line
        rows.append(line)
    image = np.array(rows, np.uint8).reshape(height, width, channels)
    return image[..., 0] if channels == 1 else image


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))


@settings(max_examples=60)
@given(hnp.arrays(np.uint8, SHAPES))
def test_a_decoder_gets_back_what_was_encoded(image: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode(image)), image)


@pytest.mark.parametrize("axis", [0, 1])
def test_smooth_pictures_are_filtered_and_still_right(axis: int) -> None:
    rng = np.random.default_rng(0)
    image = np.cumsum(rng.integers(0, 3, (40, 50, 3)), axis=axis).astype(np.uint8)
    png = encode(image)
    np.testing.assert_array_equal(decode(png), image)
    unfiltered = zlib.compress(np.pad(image.reshape(40, -1), ((0, 0), (1, 0))).tobytes(), 9)
    assert len(png) < 0.6 * len(unfiltered)


def test_strided_views_are_encoded_as_they_look() -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    np.testing.assert_array_equal(decode(encode(image[::-1, ::2])), image[::-1, ::2])


def test_pillow_agrees() -> None:
    image_module = pytest.importorskip("PIL.Image")
    import io

    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(image_module.open(io.BytesIO(encode(image)))), image)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8), np.zeros(3, np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(SpecError, match="uint8"):
        encode(image)


def test_data_uri_carries_the_file() -> None:
    image = np.full((2, 2), 7, np.uint8)
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == encode(image)
