"""Chromium without a window, driven over the DevTools protocol through a pipe: needs nothing but Chromium and Python.

`Browser` starts one in a folder of its own and ends it. `Page` is one tab of it: what a test or a runner asks of it.
Tested with Chromium on Linux; CHROMIUM names another program.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

FOUND_AS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--force-color-profile=srgb", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
PATIENCE = 30.0  # seconds


class BrowserError(Exception):
    """What Chromium, or the script in it, complained of."""


def find_chromium() -> str | None:
    """The program to start, None where there is none."""
    named = os.environ.get("CHROMIUM")
    return next((path for name in ((named,) if named else FOUND_AS) if (path := shutil.which(name))), None)


class Browser:
    """A running Chromium; use it in a `with` block. `patience` is for how many seconds it waits for an answer."""

    def __init__(self, extra: Sequence[str] = (), patience: float = PATIENCE) -> None:
        self._patience = patience
        program = find_chromium()
        if program is None:
            raise BrowserError("there is no Chromium: apt-get install chromium, or name one with CHROMIUM")
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        ours, theirs = os.pipe(), os.pipe()  # what Chromium reads as 3 and writes as 4
        reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ours[0], theirs[1]))
        # A shell puts the ends where Chromium looks for them; a home of its own keeps the user's settings out of it.
        script = f'exec "$0" "$@" 3<&{reading} 4>&{writing}'
        command = ["bash", "-c", script, program, *FLAGS, *extra, "--remote-debugging-pipe"]
        command += [f"--user-data-dir={self._folder.name}/profile", "about:blank"]
        self._process = subprocess.Popen(
            command,
            pass_fds=(reading, writing),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._folder.name},
        )
        for fd in (ours[0], theirs[1], reading, writing):
            os.close(fd)
        self._out, self._in = ours[1], theirs[0]
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._in, selectors.EVENT_READ)
        self._numbers, self._rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            os.close(self._out)  # at the pipe's end Chromium leaves by itself
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._folder.cleanup()

    @property
    def version(self) -> str:
        """Its name and version."""
        return str(self.call("Browser.getVersion")["product"])

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are kept in `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._out, data) :]
        until = time.monotonic() + self._patience
        while True:
            answer = self._next(until, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self, until: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not self._waiting.select(max(0.0, until - time.monotonic())):
                raise BrowserError(f"{what}: no answer after {self._patience:.0f} s")
            got = os.read(self._in, 1 << 20)
            if not got:
                raise BrowserError(f"{what}: Chromium has ended")
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Page:
    """A tab of a browser."""

    def __init__(self, browser: Browser, width: int = 1200, height: int = 900) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this tab."""
        return self._browser.call(method, self._session, **parameters)

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """The window's size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def media(self, **features: str) -> None:
        """Set media features: media(prefers_color_scheme="dark")."""
        pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=pairs)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        answer = self.call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = PATIENCE) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > until:
                raise BrowserError(f"never came true in {seconds:.0f} s: {condition}")
            time.sleep(0.05)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in an <input type=file>, as its dialogue would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop_file(self, selector: str, path: Path) -> None:
        """Drag a file from outside the browser and drop it on an element."""
        x, y = self.middle(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is in the window, scrolled into view."""
        found = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        if found is None:
            raise BrowserError(f"there is no {selector}")
        return found[0], found[1]

    def click(self, selector: str) -> None:
        """A click of the mouse."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key of the keyboard (one of KEYS), pressed and let go."""
        code = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": {"text": "\r"}, "Space": {"text": " "}}.get(key, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """What is seen, as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def requests(self) -> list[str]:
        """The addresses that this tab has asked for so far."""
        self.run("0")  # events come before the answer
        ours = [e for e in self._browser.events if e.get("sessionId") == self._session]
        return [e["params"]["request"]["url"] for e in ours if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Errors and warnings that the page has caused so far: exceptions, blocked requests, what the console says."""
        self.run("0")
        found = []
        for event in (e for e in self._browser.events if e.get("sessionId") == self._session):
            said = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(said["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif event["method"] == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
                found.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            elif event["method"] == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(a.get("value", a.get("description"))) for a in said["args"]))
        return found
