"""How long a page takes to open in a browser: from navigation until its graph is drawn.

    PYTHONPATH=tests python tests/benchmarks/page_opening.py                 # about 10 minutes, most of it training
    PYTHONPATH=tests python tests/benchmarks/page_opening.py --only llama

It writes the page of the plan of every shipped recipe, and of a Llama of 70 billion parameters that loses half of its
blocks, and opens each in a new headless Chromium. The page itself says when its graph stands (``performance.now()``, so
that the start of the browser does not count), in the time of a clock on the wall. A busy machine lengthens that; the
processor time of all processes of the browser, less that for an empty page, changes least.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import median

import torch
from pages.browser import CHROMIUM
from test_gallery import GALLERY, MADE
from test_recipes import NAMES, RECIPES, Workshop
from transformers import LlamaConfig, LlamaForCausalLM

import surgeon
from surgeon.cli.app import run

LIMIT = 2000
"""Milliseconds within which a page must stand."""
PROBE = """<script>
new MutationObserver((changes, observer) => {
  if (!document.body?.dataset.ready) return;
  observer.disconnect();
  fetch(`http://127.0.0.1:%d/${performance.now()}`, { mode: "no-cors" });
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["data-ready"] });
</script>"""

EMPTY = """<!doctype html><html><head></head><body><script>
setTimeout(() => { document.body.dataset.ready = "1"; });
</script></body></html>"""


def main() -> None:
    """Make the pages, open each several times, print a table; exit with 1 where one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("recipes", "gallery", "llama"), nargs="+")
    parser.add_argument("--rounds", type=int, default=3, help="times that each page is opened (default 3)")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium is installed")
    makers = {"recipes": recipes, "gallery": gallery, "llama": llama}
    slow = False
    print("| page | MB | opens in, median of the rounds | slowest | processor time |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="surgeon-pages") as folder, contextlib.chdir(folder):
        blank = Path(folder, "blank.html")
        blank.write_text(EMPTY, encoding="utf-8")
        least = median(opened(blank)[1] for _ in range(options.rounds))
        for name in options.only or makers:
            for title, page in makers[name](Path(folder)):
                times, used = zip(*(opened(page) for _ in range(options.rounds)), strict=True)
                slow |= median(times) > LIMIT
                size = page.stat().st_size / 1e6
                used_here = f"{median(used) - least:.2f} s"
                print(
                    f"| {title} | {size:.1f} | {median(times):.0f} ms | {max(times):.0f} ms | {used_here} |", flush=True
                )
    sys.exit(slow)


def recipes(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the page of each recipe on the digits."""
    sys.path.insert(0, str(RECIPES))
    os.environ["PYTHONPATH"] = f"{RECIPES}:{os.environ.get('PYTHONPATH', '')}"
    workshop = Workshop(folder)
    for name in NAMES:
        command = workshop.make_earlier(name)
        if "-o" in command:
            at = command.index("-o")
            command = [*command[:at], *command[at + 2 :]]
        workshop.make_source(name, command)
        page = folder / f"{name}.html"
        assert run(["plan", *command[1:], "--html", str(page), "-q"]) == 0
        yield name, page


def gallery(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the page of each recipe of the gallery, on the small networks of its test."""
    for recipe in GALLERY:
        place = folder / recipe.stem
        place.mkdir()
        with contextlib.chdir(place):
            page = place / "page.html"
            assert run(["plan", str(recipe), *MADE[recipe.stem](), "--html", str(page), "-q"]) == 0
        yield f"gallery/{recipe.name}", page


def llama(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the page of a plan that halves a Llama of 70 billion parameters."""
    config = LlamaConfig(
        num_hidden_layers=80, hidden_size=8192, intermediate_size=28672, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    yield (
        "a Llama of 70 billion parameters, halved",
        surgeon.write_page(folder / "llama.html", model, surgeon.Truncate(keep_blocks=0.5)),
    )


def processor_time(session: int) -> float:
    """Sum up the seconds of processor time of all processes in a session, as Linux tells them."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = status.read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:13])) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def opened(page: Path) -> tuple[float, float]:
    """Open a page in a new browser; return milliseconds until its graph stands, and seconds of processor time."""
    heard: queue.Queue[float] = queue.Queue()

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.put(float(self.path.strip("/")))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    probed = page.with_suffix(".probed.html")
    text = page.read_text(encoding="utf-8")
    probed.write_text(text.replace("<head>", "<head>" + PROBE % server.server_port, 1), encoding="utf-8")
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="profile", ignore_cleanup_errors=True) as profile:
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", probed.as_uri(),
        ]  # fmt: skip
        browser = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return heard.get(timeout=120), processor_time(browser.pid)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()


if __name__ == "__main__":
    main()
