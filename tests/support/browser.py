"""A headless browser on a page of this machine, asked by the DevTools protocol on loopback."""

import json
import subprocess
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--remote-allow-origins=*",
    ),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # a page gets nothing from the network
)

COMPLAINTS = ("Runtime.exceptionThrown", "Network.loadingFailed")


class Browser:
    """One tab. `load` opens a file at a width and collects what went wrong on the way."""

    def __init__(self, executable: str, folder: Path):
        import websocket

        self.process = subprocess.Popen(
            [executable, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._port(folder / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=60)
        self.asked = 0
        self.complaints = []
        self.loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def _port(self, file: Path) -> str:
        began = time.monotonic()
        while time.monotonic() - began < 60:
            assert self.process.poll() is None, "the browser ended"
            if file.exists() and (lines := file.read_text().splitlines()):
                return lines[0]
            time.sleep(0.1)
        raise AssertionError("the browser does not answer")

    def ask(self, method: str, **parameters):
        self.asked += 1
        self.socket.send(json.dumps({"id": self.asked, "method": method, "params": parameters}))
        while (answer := self._next()).get("id") != self.asked:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self) -> dict:
        message = json.loads(self.socket.recv())
        method = message.get("method")
        told = message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method in COMPLAINTS or (told.get("type") or told.get("entry", {}).get("level")) in (
            "error",
            "assert",
        ):
            self.complaints.append(told)
        return message

    def load(self, page: Path, width: int, height: int = 800) -> None:
        self.complaints = []
        self.loaded = False
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not self.loaded:
            self._next()
        self.evaluate(
            "Promise.all([...document.images].map(image => image.decode().catch(() => null)))"
        )

    def evaluate(self, expression: str):
        """The value of a JavaScript expression on the page."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def colours(self, scheme: str) -> None:
        """Prefer `light` or `dark` colours, as a reader's system may; "": as before."""
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def barriers(self) -> list[str]:
        """Rule and first element of what axe-core finds that seriously hinders a reader."""
        axe = files("axe_playwright_python").joinpath("axe.min.js").read_text()
        self.evaluate(f"(() => {{{axe}\n}})()")
        found = self.evaluate("axe.run(document, {preload: false}).then(found => found.violations)")
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in serious]

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
