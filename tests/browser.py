"""A browser without a window, for tests of pages; tests that need one skip where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

#: No window, no update, no network of the browser's own.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars",
)  # fmt: skip

#: A page whose media query asks sees the dark.
DARK = "--blink-settings=preferredColorScheme=0"


def find_browser() -> str:
    """Return a browser's path; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs a browser: no chromium, chromium-browser or google-chrome on the path")
    return found


def run(page: Path, folder: Path, *options: str, size: tuple[int, int] = (1000, 2400)) -> tuple[str, list[str]]:
    """Show a page; return what the browser prints, and what was written to its console."""
    command = [find_browser(), *OPTIONS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder}"]
    command += ["--enable-logging=stderr", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, errors="replace")
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def browse(page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """Return the document as the browser has it, and what was written to its console."""
    return run(page, folder, *options, "--dump-dom")


def screenshot(page: Path, folder: Path, *options: str, size: tuple[int, int] = (1000, 2400)) -> Path:
    """Return a picture of a page."""
    shot = folder.with_suffix(".png")
    run(page, folder, *options, f"--screenshot={shot}", size=size)
    return shot
