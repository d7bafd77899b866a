"""An event loop for simulations, whose time passes only when nothing else is left to do, and then at once."""

import asyncio
import selectors


class _Jumping(selectors.SelectSelector):
    """Waits for nothing; counts the seconds that it was asked to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.elapsed += timeout or 0
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.elapsed

    def let_pass(self, seconds: float) -> None:
        """Run everything that happens within this time; 0 runs everything that takes no time."""
        self.run_until_complete(asyncio.sleep(seconds + 1e-6))

    def suspend(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self._jumping.elapsed += seconds
