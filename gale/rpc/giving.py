"""Who gives an order, and why: as it stands in the log, in the events and in lines of gale-lb's own log.

With a certificate it is whom that names, which is proved. Without, it is the caller's own word, and where it was said.
A load balancer that asks the others to do their part says for whom.

What changes nothing of the state, such as an end to flows, is an event all the same (`noted`), once it was done: who
looks for the cause of a broken connection looks there. Without a quorum it is done too, and stands in the log of each
load balancer only.
"""

import grpc
import structlog

from gale.config.reading import is_name
from gale.core.commands import Given, Noted
from gale.core.outcome import Rejected
from gale.errors import ConsensusError
from gale.ports import Operator
from gale.rpc.auth import caller, peer_address
from gale.rpc.client import USER
from gale.rpc.node_service import one_line
from gale.tls import Identity, Role

log = structlog.get_logger()


def given(who: Identity | str, why: str) -> Given:
    """By whoever is known to give it."""
    return Given(str(who), one_line(why))


def given_in(context: grpc.aio.ServicerContext, why: str, here: str, behalf: str = "") -> Given:
    """By who calls. `here`: the address of this load balancer; `behalf`: for whom the caller says to ask, which only
    load balancers can."""
    who = caller(context)
    if behalf and (who is None or who.role is Role.LOAD_BALANCER):
        return given(one_line(behalf), why)
    return given(who or _said(context, here), why)


def _said(context: grpc.aio.ServicerContext, here: str) -> str:
    said = dict(context.invocation_metadata() or ()).get(USER, "")
    name = said if isinstance(said, str) and is_name(said) else "somebody"
    source = peer_address(context.peer())
    return f"{name} at {source}" if source else f"{name} on {here.rpartition(':')[0]}"


async def noted(operator: Operator, what: Noted) -> None:
    """Have it among the events, if something can be decided."""
    try:
        outcome = await operator.order(what)
        reason = outcome.reason if isinstance(outcome, Rejected) else ""
    except ConsensusError as error:
        reason = str(error)
    if reason:
        log.warning("not among the events", what=f"{what.subject}: {what.before} -> {what.after}", reason=reason)
