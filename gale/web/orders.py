"""Orders from the page: to drain a node, and to end that.

They take a certificate that may give orders, so there are none without [tls], and none on loopback, where it is plain
HTTP. A browser shows the certificate whichever page makes it ask. So an order must come from our own page: it bears a
header that another site's page cannot set without leave, which is never given; and where the browser says that the
page is from must be the very host that it asks.
"""

from urllib.parse import urlsplit

import msgspec

from gale.config.reading import is_name
from gale.core.commands import Drain
from gale.core.outcome import Rejected
from gale.errors import ConsensusError
from gale.ports import Operator
from gale.rpc.auth import ORDERS
from gale.rpc.giving import given
from gale.tls import Identity
from gale.web.http import Answer, Request

HEADER = "x-gale-order"
JSON = "application/json"


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an order."""

    node: str
    drain: bool
    why: str = ""


def may_order(who: Identity | None) -> bool:
    return who is not None and who.role in ORDERS


async def take(request: Request, operator: Operator) -> Answer:
    """Carry the order out, or say in one line why not."""
    who = request.who
    if who is None or not may_order(who):
        return Answer(f"orders take a certificate of {' or '.join(sorted(ORDERS))}, and this is {who}\n", 403)
    if reason := foreign(request):
        return Answer(f"{reason}: orders are taken from this load balancer's own page\n", 403)
    try:
        asked = msgspec.json.decode(request.body, type=Asked)
    except msgspec.DecodeError as error:
        return Answer(f"not an order: {error}\n", 400)
    if not is_name(asked.node):
        return Answer(f"{asked.node[:64]!r} is no name of a node\n", 400)
    try:
        outcome = await operator.order(Drain(0, asked.node, asked.drain, given(who, asked.why)))
    except ConsensusError as error:
        return Answer(f"{error}\n", 503)
    if isinstance(outcome, Rejected):
        return Answer(f"{outcome.reason}\n", 409)
    return Answer(f"{asked.node}: {operator.state.nodes[asked.node].phase}\n")


def foreign(request: Request) -> str:
    """What shows that another site's page asks, or may; empty when nothing does."""
    headers = request.headers
    if headers.get(HEADER) != "1" or headers.get("content-type") != JSON:
        return f"without {HEADER}: 1 and content-type: {JSON}"
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return f"sec-fetch-site: {headers['sec-fetch-site'][:64]}"
    origin = urlsplit(headers.get("origin", ""))
    if origin.scheme != "https" or origin.netloc != headers.get("host"):
        return f"origin: {headers.get('origin', 'none')[:64]}"
    return ""
