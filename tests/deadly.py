"""Networks that make images end, or hold up, the process that decodes them: in workers, where they come unpickled, alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from fakes import FakeNetwork
from headstart.images import load as loading


class Lethal(FakeNetwork):
    """A network in whose workers an image of a certain name ends the process that decodes it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        load = loading.load_image

        def lethal(root: Path, ref: Any, **options: Any) -> Any:
            if "poison" in ref.path:
                os._exit(1)
            return load(root, ref, **options)

        loading.load_image = lethal  # type: ignore[assignment]


class Slow(FakeNetwork):
    """A network that waits at some images for as long as a file is there."""

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self.gate = gate

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        load = loading.load_image

        def slow(root: Path, ref: Any, **options: Any) -> Any:
            while ref.path.startswith("bee") and self.gate.exists():
                time.sleep(0.01)
            return load(root, ref, **options)

        loading.load_image = slow


class Deadly(FakeNetwork):
    """A network that ends the process of its worker once: at the first image of a name."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        load = loading.load_image

        def once(root: Path, ref: Any, **options: Any) -> Any:
            if ref.path.endswith("13.png") and not self.mark.exists():
                self.mark.touch()
                os._exit(1)
            return load(root, ref, **options)

        loading.load_image = once  # type: ignore[assignment]
