"""Ctrl-C that waits until what must be whole is whole.

Python raises KeyboardInterrupt between any two steps of a program. Optuna is not made for it: a
journal's lock stays or its release fails, a record is missing in memory, and while a trial's value
is told another error (UnboundLocalError) takes the interrupt's place.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import optuna
from optuna.trial import Trial

Handler = Callable[[int, FrameType | None], Any]


class Interrupts:
    """Holds Ctrl-C back while it is entered: the handler that was there is called afterwards.

    Only the main thread is ever interrupted, and only where a handler of Python's is installed. To
    block the signal instead would not do: any thread of torch's may receive it.
    """

    def __init__(self) -> None:
        self._handler: Handler | None = None
        self._came = False

    def __enter__(self) -> None:
        handler = signal.getsignal(signal.SIGINT)
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._handler = handler if in_main_thread and callable(handler) else None
        self._came = False
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *error: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self.deliver()

    def deliver(self) -> None:
        """Call the handler now if Ctrl-C came meanwhile. Raises: as a rule, KeyboardInterrupt."""
        if self._came and self._handler is not None:
            self._came = False
            self._handler(signal.SIGINT, None)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Ctrl-C comes through at once in here, and what came before it does so now."""
        if self._handler is None:
            yield
            return
        try:
            signal.signal(signal.SIGINT, self._handler)
            self.deliver()
            yield
        finally:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True


class InterruptibleStudy(optuna.Study):
    """A study, on any storage, in which Ctrl-C comes while a candidate is judged or when its trial
    is written, and not in between."""

    def optimize(self, func: Any, *arguments: Any, **options: Any) -> None:
        """As Optuna's. Raises: KeyboardInterrupt too."""
        interrupts = Interrupts()

        def judged(trial: Trial) -> float | Sequence[float]:
            with interrupts.heard():
                value: float | Sequence[float] = func(trial)
            return value

        with interrupts:
            super().optimize(judged, *arguments, **options)
