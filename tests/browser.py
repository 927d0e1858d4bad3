"""A real Chromium, told what to do over two pipes by the DevTools protocol, with no driver in between.

The pipes are its files 3 and 4; messages end with a zero byte. Each call waits for its answer within a bound.
"""

import asyncio
import base64
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHIN_S = 20.0
MESSAGE_MAX = 64 * 1024 * 1024
FIRST_FREE = 10  # no number that the pipes are given as
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
)
HASTE = "const wait = window.setTimeout; window.setTimeout = (what, ms) => wait(what, ms / 4);"
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}


class Page:
    """One tab. `asked`: the URLs that it asked for; `complaints`: what it wrote to its console, and uncaught errors."""

    def __init__(self, reader: asyncio.StreamReader, to_it: int) -> None:
        self._reader = reader
        self._to_it = to_it
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tab: dict[str, str] = {}
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            elif message["method"] == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            elif message["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.complaints.append(json.dumps(message["params"]))

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params, **self._tab}
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(WITHIN_S):
            answer = await self._answers[number]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    async def begin(self) -> None:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        self._tab = {"sessionId": session}
        for part in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{part}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=HASTE)

    async def open(self, url: str, width: int, height: int, phone: bool = False, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[theme])
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, expression: str, within_s: float = WITHIN_S) -> None:
        """Wait until it is true."""
        await eventually(lambda: self.value(expression), expression, within_s)

    async def press(self, key: str) -> None:
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def write(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def picture(self, whole: bool = True) -> bytes:
        """As PNG; `whole`: also what is below the screen."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


async def eventually(look: Callable[[], Awaitable[object]], what: str, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not await look():  # noqa: ASYNC110  what is waited for is another program's work
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Page]:
    """`folder`: for what it keeps."""
    its_in, to_it = _pipe()
    from_it, its_out = _pipe()
    command = f'exec "$@" 3<&{its_in} 4>&{its_out}'
    program = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        "bash",
        str(CHROMIUM),
        *OPTIONS,
        f"--user-data-dir={folder}",
        pass_fds=(its_in, its_out),
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(its_in)
    os.close(its_out)
    reader = asyncio.StreamReader(limit=MESSAGE_MAX)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(from_it, "rb"))
    page = Page(reader, to_it)
    listening = asyncio.create_task(page.listen())
    try:
        await page.begin()
        yield page
    finally:
        listening.cancel()
        transport.close()
        os.close(to_it)
        program.kill()
        await program.wait()


def _pipe() -> tuple[int, int]:
    low = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for end in low]
    for end in low:
        os.close(end)
    return ends[0], ends[1]
