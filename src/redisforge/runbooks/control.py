"""What can end a verb before it is done: Ctrl-C, and the budget of what clients may notice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

from redisforge.runbooks.run import Progress


class Control:
    """Asked at every safe point. The first Ctrl-C asks for a stop there, the second interrupts at once."""

    def __init__(self, progress: Progress, over_budget: Callable[[], None] = lambda: None) -> None:
        self._progress = progress
        self._over_budget = over_budget
        self._asked_to_stop = False
        self._interrupted = False

    def stop_requested(self) -> bool:
        """Whether somebody wants the verb to end at the next safe point."""
        return self._asked_to_stop

    def safe_point(self) -> None:
        """Nothing is half done now: end here if that was asked for.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            AbortedError: clients have noticed more than was allowed.
        """
        if self._asked_to_stop:
            raise KeyboardInterrupt
        self._over_budget()

    @contextmanager
    def listening(self) -> Generator[None]:
        """Take SIGINT and SIGTERM of this process, within a running event loop.

        Raises:
            KeyboardInterrupt: the second of them came while the block was at work.
        """
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            loop.add_signal_handler(number, self._on_signal, asyncio.current_task())
        try:
            yield
        except asyncio.CancelledError:
            if self._interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _on_signal(self, task: asyncio.Task[object] | None) -> None:
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self._progress("stopping at the next safe point; Ctrl-C again stops at once")
        elif task is not None:
            self._interrupted = True
            task.cancel()
