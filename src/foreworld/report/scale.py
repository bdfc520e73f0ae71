"""Axes: from data to pixels, and ticks at round numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Range = tuple[float | None, float | None]

_FARTHEST = 1e100
# Closer than this, relative to their size, two ends count as one: no tick label could tell them apart.
_SAME = 1e-12
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """A range of data laid over a range of pixels, linearly or by logarithm.

    Attributes:
        low, high: the data at both ends, low < high; positive when `log`.
        start, stop: the pixels at both ends.
        log: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, values: ArrayLike) -> Floats:
        """Place data on the axis, in pixels; on a logarithmic axis what is not positive gives NaN.

        Example:
            >>> float(Axis(1, 100, 0, 200, log=True)(10))
            100.0
        """
        # Wider than the data that a range is chosen for, as its ticks and its margins lie further out.
        values, low, high = shown(values, _FARTHEST**1.5), self.low, self.high
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(values > 0, np.log10(values), np.nan)
            low, high = math.log10(low), math.log10(high)
        return self.start + (values - low) / (high - low) * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Choose about `count` round values within the axis."""
        return log_ticks(self.low, self.high, count) if self.log else linear_ticks(self.low, self.high, count)


def shown(values: ArrayLike, farthest: float = _FARTHEST) -> Floats:
    """Take values as an axis shows them: NaN beyond `farthest` either way, and zero nearer to it than its inverse.

    Differences and ratios of what is left stay within the range of floats.
    """
    values = np.asarray(values, float)
    return np.where(np.abs(values) <= farthest, np.where(np.abs(values) < 1 / farthest, 0.0, values), np.nan)


def span(
    values: Floats, fixed: Range = (None, None), log: bool = False, pad: float = 0.0
) -> tuple[float, float] | None:
    """Find the range that an axis should cover.

    Args:
        values: any shape; what is not finite (or, with `log`, not positive) is ignored.
        fixed: ends that are given; None where the data decide.
        log: for a logarithmic axis.
        pad: the share of the range added at each end that the data decide.

    Returns:
        Low and high with low < high, or None when there is nothing to show.
    """
    known = shown(values)
    known = known[known > 0] if log else known[~np.isnan(known)]
    if log:
        fixed = (fixed[0] if (fixed[0] or 0) > 0 else None, fixed[1] if (fixed[1] or 0) > 0 else None)
    if known.size == 0:
        return None
    low = float(known.min()) if fixed[0] is None else float(fixed[0])
    high = float(known.max()) if fixed[1] is None else float(fixed[1])
    if high - low <= _SAME * max(abs(low), abs(high)):
        return _around(low if fixed[0] is not None or fixed[1] is None else high, fixed[0] is not None, log)
    if log:
        grow = (high / low) ** pad
        return low if fixed[0] is not None else low / grow, high if fixed[1] is not None else high * grow
    grow = (high - low) * pad
    return low if fixed[0] is not None else low - grow, high if fixed[1] is not None else high + grow


def _around(value: float, keep_low: bool, log: bool) -> tuple[float, float]:
    """Open a range around a constant: a tenth of it to each side, or one where it is zero."""
    if log:
        return (value if keep_low else value / 2), value * 2
    room = abs(value) / 10 or 1.0
    return (value if keep_low else value - room), value + room


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose about `count` round values, 1, 2 or 5 times a power of ten apart.

    Example:
        >>> linear_ticks(0, 50)
        [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    rough = (high - low) / max(count, 1)
    if not (math.isfinite(rough) and rough > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * m for m in (1, 2, 5, 10)), key=lambda size: abs(math.log(size / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded to the step's own digits: 3 * 0.1 is written 0.3.
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(k * step, digits) + 0.0 for k in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose powers of ten; within few decades also their multiples, within one plain round values.

    Example:
        >>> log_ticks(1, 50)
        [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if high / low < 5:
        return [tick for tick in linear_ticks(low, high, count) if tick > 0]
    decades = range(first, last + 1, max(1, round((last - first) / count)))
    multiples = (1, 2, 5) if high / low < 10**2.5 else (1,)
    ticks = [float(f"{m}e{d}") for d in decades for m in multiples]
    return [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]


def number(value: float, digits: int = 3) -> str:
    """Write a number for people: few digits, k and M for large ones, powers of ten for tiny ones.

    Example:
        >>> number(0.25), number(12000), number(0.00002), number(-3.0)
        ('0.25', '12k', '2×10⁻⁵', '−3')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size, sign = abs(value), "−" if value < 0 else ""
    if size == 0:
        return "0"
    if size >= 1e9 or size < 1e-3:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
        return sign + (power if mantissa == "1" else f"{mantissa}×{power}")
    for unit, suffix in ((1e6, "M"), (1e4, "k")):
        if size >= unit:
            return sign + _plain(size / (1e3 if suffix == "k" else unit), digits) + suffix
    return sign + _plain(size, digits)


def _plain(size: float, digits: int) -> str:
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{size:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def tick_labels(ticks: list[float], log: bool = False) -> list[str]:
    """Write the ticks of one axis: with as many digits as tell them apart, decimals aligned.

    Example:
        >>> tick_labels([0.0, 0.05, 0.1])
        ['0.00', '0.05', '0.10']
        >>> tick_labels([0.0, 5000.0, 10000.0])
        ['0', '5k', '10k']
    """
    largest = max(map(abs, ticks), default=0.0)
    if not log and 1e4 <= largest < 1e9:
        unit, suffix = (1e6, "M") if largest >= 1e6 else (1e3, "k")
        return [text + suffix * (text != "0") for text in tick_labels([tick / unit for tick in ticks])]
    digits = next((d for d in range(2, 15) if len({number(t, d) for t in ticks}) == len(ticks)), 15)
    texts = [number(tick, digits) for tick in ticks]
    return texts if log else aligned(texts)


def aligned(texts: list[str]) -> list[str]:
    """Give plain numbers the same count of decimals; where one is not plain, leave all as they are."""
    if not all(text.strip("−").replace(".", "").isdigit() for text in texts):
        return texts
    places = max((len(text.partition(".")[2]) for text in texts), default=0)
    if not places:
        return texts
    return [f"{text.partition('.')[0]}.{text.partition('.')[2]:0<{places}}" for text in texts]
