"""A headless Chromium driven over WebDriver (W3C) with nothing but the standard library."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


class Browser:
    """One window. Skips the test where there is no Chromium."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromedriver")
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None or browser is None:
            pytest.skip(
                "pages in a browser: no chromium and chromedriver (Debian: chromium, chromium-driver)"
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            [program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._session = ""
        try:
            self._wait()
            options = {"binary": browser, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            begun = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{begun['sessionId']}"
        except BaseException:
            self.close()
            raise

    def open(self, page: Path) -> None:
        self._call("POST", f"{self._session}/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        """What a script returns; a promise is waited for."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def command(self, name: str, **params: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": name, "params": params})

    def press(self, key: str) -> None:
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        keys = {"type": "key", "id": "keyboard", "actions": actions}
        self._call("POST", f"{self._session}/actions", {"actions": [keys]})

    def complaints(self) -> list[str]:
        """What the console got since last asked."""
        return [
            entry["message"] for entry in self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        ]

    def close(self) -> None:
        try:
            if self._session:
                self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait()

    def _wait(self) -> None:
        for _ in range(600):
            try:
                self._call("GET", "/status")
                return
            except urllib.error.URLError:
                time.sleep(0.05)
        raise AssertionError("chromedriver does not answer")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=300
        ) as answer:
            return json.load(answer)["value"]
