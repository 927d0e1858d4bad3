"""What the packet path has counted, added up over the processors."""

from collections.abc import Iterable, Mapping, Sequence

from gale.dataplane.abi import verdicts
from gale.dataplane.bpfmap import BpfMap
from gale.ports import Counters, Traffic


def counters(maps: Mapping[str, BpfMap], services: Sequence[str], nodes: Iterable[int]) -> Counters:
    """`services`: in the order that numbers them; `nodes`: the numbers to ask for. Those without traffic are left
    out."""
    totals = maps["verdicts"].totals()
    by_service, by_node = maps["service_traffic"].totals(range(len(services))), maps["node_traffic"].totals(nodes)
    return Counters(
        verdicts={verdict.name: totals[index][0] for index, verdict in enumerate(verdicts())},
        services={services[number]: traffic for number, traffic in _moved(by_service, maps["service_traffic"]).items()},
        nodes=_moved(by_node, maps["node_traffic"]),
    )


def _moved(totals: Mapping[int, tuple[int, ...]], table: BpfMap) -> dict[int, Traffic]:
    """By the names that the fields have in bpf/abi.h, too."""
    names = [name for name, *_ in table.Leaf._fields_]
    return {number: Traffic(**dict(zip(names, words, strict=True))) for number, words in totals.items() if any(words)}
