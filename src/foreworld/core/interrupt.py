"""Ctrl-C and SIGTERM: a loop is told, and ends where its work is whole."""

from __future__ import annotations

import signal as signals
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signals.SIGINT, signals.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Work was ended by a signal; the command line prints the message and exits with 128 + `signal`.

    Args:
        signal: its number.
        message: what is saved, and how to go on.
    """

    def __init__(self, signal: int, message: str = "interrupted; what was finished is kept") -> None:
        super().__init__(message)
        self.signal = signal


class Interruption:
    """Whether a signal has asked for the end.

    Attributes:
        signal: the number of the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        """Whether to end as soon as the work is whole."""
        return self.signal is not None

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Interrupted(number)
        self.signal = number


@contextmanager
def graceful() -> Iterator[Interruption]:
    """Turn the first SIGINT or SIGTERM into a request, which the loop inside looks at; the second ends it at once.

    The handlers that were there come back at the end. A signal that is ignored (as a shell does for background
    jobs) stays ignored. Outside the main thread, where Python allows no handlers, nothing is installed and
    nothing is ever requested.

    Raises:
        Interrupted: a KeyboardInterrupt, raised inside the block when a second signal arrives.

    Example:
        >>> import signal
        >>> with graceful() as interruption:
        ...     for step in range(10):
        ...         if step == 3:
        ...             signal.raise_signal(signal.SIGTERM)
        ...         if interruption.requested:
        ...             break
        >>> step, interruption.signal == signal.SIGTERM
        (3, True)
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signals.getsignal(number) for number in SIGNALS}
    # None is a handler that was not installed by Python: it could not be put back
    ours = [number for number, handler in before.items() if handler not in (signals.SIG_IGN, None)]
    try:
        for number in ours:
            signals.signal(number, interruption._arrive)
        yield interruption
    finally:
        for number in ours:
            signals.signal(number, before[number])
