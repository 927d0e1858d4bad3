"""The pictures of the page in docs/PAGE.md: python -m tests.rpc.pictures docs/pictures

They are of the page itself in a real Chromium, with a minute of traffic before them.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from gale.core.state import NodeInfo
from tests.rpc.test_page import shown, text

WATCHED_S = 60


async def draw(into: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with shown(Path(folder), rights=True) as (box, page, url):
            box.dataplane.attachments = {"eth0": "native", "eth1": "native"}
            box.controller.check(NodeInfo("web-4", "192.168.1.14"), serving=False, reason="GET /health says 503")
            await page.open(url, 1000, 940)
            await page.until(f"{text('#services')}.includes('bit/s')")
            await asyncio.sleep(WATCHED_S)
            (into / "page.png").write_bytes(await page.picture(whole=False))
            await page.open(url, 390, 844, phone=True, dark=True)
            await page.until(f"{text('#services')}.includes('bit/s')")
            (into / "page-phone.png").write_bytes(await page.picture(whole=False))
            await page.value("document.querySelector('#nodes').scrollIntoView()")
            (into / "page-phone-nodes.png").write_bytes(await page.picture(whole=False))


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
