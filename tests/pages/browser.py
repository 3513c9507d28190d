"""Open a page in a headless Chromium, run a script in it, and return what the script says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

PROBE = """
<script>
const faults = [];
window.addEventListener("error", (event) => faults.push(event.message));
window.addEventListener("unhandledrejection", (event) => faults.push(String(event.reason)));
</script>
"""
HARNESS = """
<script>
(async () => {
  const settled = async (turn) => {
    for (let tries = 0; tries < 600 && !(Number(document.body.dataset.ready) >= turn); tries++) {
      await new Promise((done) => setTimeout(done, 10));
    }
  };
  let said;
  try {
    await settled(1);
    const opened = performance.now();
    said = await (async () => { %s })();
    faults.push(...[].concat(said?.faults || []));
    said = { value: said, opened };
  } catch (error) { faults.push(String(error.stack || error)); }
  const out = document.createElement("pre");
  out.id = "said";
  out.textContent = JSON.stringify({ ...said, faults });
  document.body.append(out);
})();
</script>
"""


def run_in_page(page: Path, script: str, *, width: int = 1200) -> dict[str, Any]:
    """Run the body of an async function in a copy of ``page``, after the graph is drawn.

    Returns:
        ``value``: what it returns; ``opened``: the milliseconds until the graph stood; ``faults``: uncaught errors.
    """
    text = page.read_text(encoding="utf-8")
    head, tag, tail = text.partition("<head>")
    assert tag
    body, end, rest = tail.rpartition("</body>")
    copy = page.with_name(f"{page.stem}-probed.html")
    copy.write_text(f"{head}<head>{PROBE}{body}{HARNESS % script}{end}{rest}", encoding="utf-8")
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
        "--virtual-time-budget=60000", f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    said = re.search(r'<pre id="said">(.*?)</pre>', dumped, re.DOTALL)
    assert said, f"the page said nothing: {dumped[-2000:]}"
    return json.loads(html.unescape(said[1]))  # type: ignore[no-any-return]
