"""Something that is done before it is asked for: in order, never too far ahead, and its faults are the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from foreworld.train.ahead import Ahead


def counting(most: int | None = None, fault: BaseException | None = None) -> tuple[list[int], Callable[[], int | None]]:
    """Return the numbers that were given so far, and a function that gives the next one; at `most` it fails or ends."""
    given: list[int] = []

    def call() -> int | None:
        if len(given) == most:
            if fault is not None:
                raise fault
            return None
        given.append(len(given))
        return given[-1]

    return given, call


@pytest.mark.parametrize("lead", [1, 3])
def test_all_comes_in_order_and_never_is_more_than_the_lead_waiting(lead: int) -> None:
    given, call = counting(most=200)
    ahead = Ahead(call, lead)
    for number in range(200):
        assert len(given) <= number + lead
        assert ahead.take() == number
    ahead.close(patience=5.0)
    assert not ahead._thread.is_alive()


def test_a_fault_comes_after_what_was_found_before_it_as_itself() -> None:
    fault = KeyError("it broke")
    _, call = counting(most=2, fault=fault)
    ahead = Ahead(call, lead=5)
    assert [ahead.take(), ahead.take()] == [0, 1]
    for _ in range(2):
        with pytest.raises(KeyError) as found:
            ahead.take()
        assert found.value is fault
    ahead.close(patience=5.0)


def test_while_it_is_held_nothing_is_called_and_what_waits_goes_on_waiting() -> None:
    given, call = counting()
    ahead, taken = Ahead(call, lead=4), []
    for _ in range(20):
        with ahead.held() as waiting:
            assert taken + waiting == given
            assert not ahead._busy and len(waiting) <= 4
        taken.append(ahead.take())
    assert taken == list(range(20))
    ahead.close(patience=5.0)


def test_a_call_that_hangs_does_not_keep_the_end() -> None:
    go, inside = threading.Event(), threading.Event()

    def call() -> int:
        inside.set()
        go.wait()
        return 1

    ahead = Ahead(call, lead=1)
    inside.wait()
    ahead.close(patience=0.0)
    assert ahead._thread.is_alive()
    go.set()
    ahead._thread.join()


def test_what_nobody_takes_does_not_keep_the_end() -> None:
    ahead = Ahead(counting()[1], lead=2)
    ahead.take()
    ahead.close(patience=5.0)
    assert not ahead._thread.is_alive()
