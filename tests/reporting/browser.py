"""Opens a page in a real browser without a window."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

# Debian's, and what others call it.
_NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Offline: no name is found, the browser's own ones neither.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
    # Until everything that the page waits for has happened, of its own time.
    "--virtual-time-budget=5000",
    # Console messages go to standard error.
    "--enable-logging=stderr",
    "--v=0",
)


@dataclass
class Shown:
    """`console`: the messages; `pixels`: [height, width, 3]; `dom`: HTML of the drawn page
    without its scripts."""

    console: list[str]
    pixels: np.ndarray
    dom: str


def browser():
    """Its path. Skips the test without one, but not where tests have to be complete."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    reason = "no browser: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def show(page, folder, width=1200, height=3000, dark=False, script=""):
    """Opens an HTML file.

    Args:
      folder: for the browser's own files.
      script: JavaScript that runs at the end of the page.
    """
    copy = folder / "page.html"
    text = page.read_text("utf-8")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    screenshot = folder / "screenshot.png"
    result = subprocess.run(
        [
            browser(),
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},{height}",
            f"--screenshot={screenshot}",
            "--dump-dom",
            f"file://{copy}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", result.stderr)
    dom = re.sub("<script.*?</script>", "", result.stdout, flags=re.DOTALL)
    return Shown(console, np.asarray(Image.open(screenshot).convert("RGB")), dom)
