"""The first signal asks, the second ends; afterwards everything is as before."""

from __future__ import annotations

import signal
import threading

import pytest

from foreworld.core.interrupt import Interrupted, graceful

pytestmark = pytest.mark.usefixtures("plain_handlers")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    with graceful() as interruption:
        assert (interruption.requested, interruption.signal) == (False, None)
        signal.raise_signal(number)
        assert (interruption.requested, interruption.signal) == (True, number)
        with pytest.raises(KeyboardInterrupt) as stop:
            signal.raise_signal(number)
    assert isinstance(stop.value, Interrupted) and stop.value.signal == number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_come_back_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), graceful():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with graceful() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert not interruption.requested
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_get_an_object_that_never_asks() -> None:
    found = []

    def work() -> None:
        with graceful() as interruption:
            found.append((interruption.requested, signal.getsignal(signal.SIGINT) is signal.default_int_handler))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, True)]
