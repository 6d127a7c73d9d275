"""A headless Chromium, spoken to over its debugging pipe with the standard library alone."""

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager

BINARY = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))),
    None,
)
WAIT_S = 60.0
"""For any one answer: a loaded machine is slow, a dead browser closes its pipe at once."""

CONTRAST = r"""(() => {
  const part = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => c.reduce((sum, v, i) => sum + [.2126, .7152, .0722][i] * part(v / 255), 0);
  const parse = text => text.match(/[\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const bad = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), e = walker.currentNode.parentElement;
    if (!text || e.closest('svg, style')) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const a = light(parse(style.color).slice(0, 3)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const isLarge = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) bad.push([text.slice(0, 40), ratio.toFixed(2)]);
    seen++;
  }
  return {bad, seen};
})()"""
"""WCAG 2.2 AA, 1.4.3: texts whose contrast is below 4.5 (large ones: 3)."""


class Browser:
    """One page. `call` sends a command of the protocol, `run` evaluates JavaScript in the page."""

    def __init__(self, reader, writer):
        self._reader, self._writer, self._last, self._rest = reader, writer, 0, b""
        self.messages = []
        """Everything that the console, the log or an exception said."""
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url):
        """Load a page and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + WAIT_S
        while self.run("document.readyState + location.href") != "complete" + url:
            assert time.monotonic() < deadline, "the page does not load"

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key, code):
        """One key: `Tab` 9, `Enter` 13."""
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def _next(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._reader, 1 << 16)
            assert chunk, "Chromium has closed its pipe"
            self._rest += chunk
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(str([a.get("value") for a in params["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(params["exceptionDetails"]["text"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "about:", "data:")):
                self.messages.append(f"asked the network for {url}")


@contextmanager
def browser(profile):
    """A browser with its own profile folder; ended by its own process id."""
    to_read, to_write = os.pipe(), os.pipe()
    script = f'exec "$0" "$@" 3<&{to_write[0]} 4>&{to_read[1]}'
    process = subprocess.Popen(
        [
            *("bash", "-c", script, BINARY),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-extensions", "--remote-debugging-pipe"),
            f"--user-data-dir={profile}",
        ],
        pass_fds=(to_write[0], to_read[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(to_write[0])
    os.close(to_read[1])
    try:
        yield Browser(to_read[0], to_write[1])
    finally:
        process.kill()
        process.wait()
        os.close(to_read[0])
        os.close(to_write[1])
