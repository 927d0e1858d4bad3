"""Where gale-lab's demo is told: a live view on a terminal, plain lines with their times anywhere else."""

import time
from typing import Self

from rich.console import Console
from rich.live import Live

from gale.lab.board import board, line
from gale.lab.scene import Scene

LINE_EVERY_S = 2.0


class PlainScreen:
    def __init__(self) -> None:
        self._begin_s = time.monotonic()
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begin_s:6.1f} s  {text}", flush=True)

    def show(self, scene: Scene) -> None:
        if scene.at_s - self._shown_s >= LINE_EVERY_S:
            self._shown_s = scene.at_s
            self.say(f"  · {line(scene)}")


class LiveScreen:
    """The board in place, redrawn with each scene; when it is left, the whole story stays as plain lines."""

    def __init__(self, console: Console) -> None:
        self._begin_s = time.monotonic()
        self._story: list[str] = []
        self._scene: Scene | None = None
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        for told in self._story:
            self._console.print(told, markup=False, highlight=False)

    def say(self, text: str) -> None:
        self._story.append(f"{time.monotonic() - self._begin_s:6.1f} s  {text}")
        self._draw()

    def show(self, scene: Scene) -> None:
        self._scene = scene
        self._draw()

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._begin_s
        self._live.update(board(self._scene, self._story, elapsed), refresh=True)
