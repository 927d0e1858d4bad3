"""Slot tables: balance, least movement and homecoming, as properties over random histories of node sets."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from gale.core.slots import SlotTable, rebalance

weights = st.dictionaries(st.integers(1, 9), st.integers(1, 5), max_size=6)
histories = st.lists(weights, min_size=1, max_size=5)
SLOTS = 64


def owners(table: SlotTable) -> list[int]:
    return list(memoryview(table.owners).cast("H"))


def after(history: list[dict[int, int]], slots: int = SLOTS) -> SlotTable:
    table = SlotTable.empty(slots)
    for nodes in history:
        table = rebalance(table, nodes)
    return table


def moved(before: SlotTable, table: SlotTable) -> int:
    return sum(a != b for a, b in zip(owners(before), owners(table), strict=True))


@given(histories)
def test_every_share_is_less_than_one_slot_from_its_exact_weighted_quota(history: list[dict[int, int]]) -> None:
    held, total = Counter(owners(after(history))), sum(history[-1].values())
    for number, weight in history[-1].items():
        assert abs(held[number] * total - SLOTS * weight) < total


@given(histories)
def test_slots_belong_to_the_given_nodes_and_to_none_only_when_there_are_none(history: list[dict[int, int]]) -> None:
    assert set(owners(after(history))) <= (set(history[-1]) or {0})


@given(histories, weights.filter(bool))
def test_no_table_with_the_same_balance_moves_fewer_slots(history: list[dict[int, int]], nodes: dict[int, int]) -> None:
    before = after(history)
    held, total = Counter(owners(before)), sum(nodes.values())
    floors = {number: SLOTS * weight // total for number, weight in nodes.items()}
    uneven = [number for number, weight in nodes.items() if SLOTS * weight % total]
    extra = SLOTS - sum(floors.values())

    def moves(rounded_up: tuple[int, ...]) -> int:
        return SLOTS - sum(min(held[n], floors[n] + (n in rounded_up)) for n in nodes)

    least = min(moves(rounded_up) for rounded_up in combinations(uneven, extra))
    assert moved(before, rebalance(before, nodes)) == least


@given(histories, weights.filter(lambda nodes: len(nodes) > 1), st.data())
def test_a_node_that_comes_back_gets_its_own_slots_back(
    history: list[dict[int, int]], nodes: dict[int, int], data: st.DataObject
) -> None:
    before = after([*history, nodes])
    gone = data.draw(st.sampled_from(sorted(nodes)))
    without = rebalance(before, {number: weight for number, weight in nodes.items() if number != gone})
    back = rebalance(without, nodes)
    own = {slot for slot, owner in enumerate(owners(before)) if owner == gone}
    again = {slot for slot, owner in enumerate(owners(back)) if owner == gone}
    assert again <= own or own <= again


@given(histories, weights.filter(lambda nodes: len(nodes) > 1), st.data())
def test_a_node_that_goes_and_comes_again_brings_back_the_same_tables(
    history: list[dict[int, int]], nodes: dict[int, int], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(nodes)))
    without = {number: weight for number, weight in nodes.items() if number != gone}
    first = after([*history, nodes, without, nodes])
    assert after([*history, nodes, without, nodes, without, nodes]) == first


def test_the_same_nodes_move_nothing() -> None:
    table = after([{1: 1, 2: 3, 3: 2}])
    assert rebalance(table, {1: 1, 2: 3, 3: 2}).owners == table.owners


def test_a_thousand_nodes_on_a_full_table_are_balanced() -> None:
    nodes = {number: 1 + number % 7 for number in range(1, 1_001)}
    held, total = Counter(owners(after([nodes], 16_384))), sum(nodes.values())
    assert all(abs(held[n] * total - 16_384 * weight) < total for n, weight in nodes.items())
