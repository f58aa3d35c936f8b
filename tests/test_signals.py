"""What becomes of a signal that arrives while other code does not expect one."""

import signal

import pytest

from glimpse.errors import Interrupted, UserError
from glimpse.signals import interrupts_as_signals


def interrupted_and_then(error: Exception) -> None:
    """A cleanup fails while a signal ends the code around it."""
    with interrupts_as_signals():
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            raise error


def test_a_cleanup_that_fails_does_not_hide_a_signal() -> None:
    with pytest.raises(Interrupted) as stop:
        interrupted_and_then(AttributeError("'NoneType' object has no attribute 'x'"))
    assert stop.value.exit_code == 143


@pytest.mark.parametrize("error", [UserError("the disk is full"), OSError("the disk is full")])
def test_a_stopped_run_that_cannot_save_says_so(error: Exception) -> None:
    with pytest.raises(type(error), match="full"):
        interrupted_and_then(error)


def test_errors_that_cause_each_other_end() -> None:
    first, second = KeyError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(KeyError, match="first"), interrupts_as_signals():
        raise first


def test_a_keyboard_interrupt_of_a_users_own_code_is_ctrl_c() -> None:
    with pytest.raises(Interrupted) as stop, interrupts_as_signals():
        raise KeyboardInterrupt
    assert stop.value.exit_code == 130
