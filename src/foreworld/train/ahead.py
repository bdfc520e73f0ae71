"""`Ahead`: do something again and again in a thread of its own, a bounded number of times before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Call a function in a thread of its own; what it returned is taken in the same order.

    Args:
        call: returns the next result, or None when there is no more. It is called by one thread alone.
        lead: results that may wait to be taken; when there are so many, the thread waits too.
    """

    def __init__(self, call: Callable[[], T | None], lead: int) -> None:
        self._call, self._lead = call, lead
        self._waiting: deque[T] = deque()
        self._changed = Condition()
        self._busy = self._held = self._over = False
        self._fault: BaseException | None = None
        self._thread = Thread(target=self._run, name="foreworld-ahead", daemon=True)
        self._thread.start()

    def take(self) -> T:
        """Wait for the next result.

        Raises:
            BaseException: what the function raised, once all before it is taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
        raise self._fault or StopIteration("there is no more")

    @contextmanager
    def held(self) -> Iterator[list[T]]:
        """Keep the thread between two calls, and show what waits to be taken; a call under way is waited for."""
        with self._changed:
            self._held = True
            self._changed.wait_for(lambda: not self._busy)
            found = list(self._waiting)
        try:
            yield found
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    def close(self, patience: float) -> None:
        """End the thread.

        Args:
            patience: seconds to wait for a call under way. One that takes longer, such as a step of an environment
                that hangs, is left alone: the thread ends when it returns, or with the process.
        """
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join(patience)

    def _run(self) -> None:
        while self._begin():
            found, fault = None, None
            try:
                found = self._call()
            except BaseException as raised:  # it belongs to who waits for the result
                fault = raised
            with self._changed:
                self._busy = False
                if found is None:
                    self._fault, self._over = fault, True
                else:
                    self._waiting.append(found)
                self._changed.notify_all()

    def _begin(self) -> bool:
        """Wait until a call may begin; say whether there is to be one."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or not (self._held or len(self._waiting) >= self._lead))
            self._busy = not self._over
            return self._busy
