"""Who leads, who may not vote, who is not talked to: three real replicas with cut links, lost files, other words."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gale.core.hello import Hello, judge
from gale.core.shared import HealthPolicy
from gale.errors import ConfigError, ConsensusError
from gale.raft.election import Standing, would_vote
from tests.raft.trio import SHARED, Trio, announce, eventually, free_addresses, passed, trio


async def filled(cluster: Trio) -> str:
    """A cluster with something in its log; its leader."""
    leader = await cluster.leader()
    address = str(leader.status().leader)
    await leader.propose(announce(address))
    await leader.propose(passed(address, "kept", 1))
    await cluster.all_know("kept")
    return address


async def compacted(cluster: Trio, address: str) -> None:
    cluster.running[address]._replica.forceLogCompaction()
    await eventually((cluster.directory_of(address) / "snapshot").exists)


async def test_a_leader_that_is_cut_off_says_so_soon_and_the_others_go_on(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        loop, cut = asyncio.get_running_loop(), cluster.running[first]
        cluster.streams[first].cut = True
        began = loop.time()
        await eventually(lambda: not cut.status().quorum)
        assert loop.time() - began <= 1.4
        with pytest.raises(ConsensusError):
            await cut.propose(passed(first, "lost", 2))
        others = [replica for address, replica in cluster.running.items() if address != first]
        await eventually(lambda: all(replica.status().quorum for replica in others))
        await others[0].propose(passed(first, "later", 3))
        assert "lost" not in others[0].state.nodes
        cluster.streams[first].cut = False
        began = loop.time()
        await cluster.all_know("later")
        assert loop.time() - began <= 2.0


async def test_a_follower_that_comes_back_deposes_nobody(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        away = next(address for address in cluster.quorum if address != first)
        stays = next(address for address in cluster.quorum if address not in (first, away))
        cluster.streams[away].cut = True
        await asyncio.sleep(2.5)
        await cluster.running[first].propose(passed(first, "meanwhile", 2))
        before = cluster.running[stays].status()
        cluster.streams[away].cut = False
        await cluster.all_know("meanwhile")
        await asyncio.sleep(0.7)
        after = cluster.running[stays].status()
        assert (after.leader, after.term) == (before.leader, before.term)


async def test_a_leader_that_is_stopped_hands_over_first(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        term = cluster.running[first].status().term
        loop = asyncio.get_running_loop()
        began = loop.time()
        await cluster.stop(first)
        second = await cluster.leader()
        assert loop.time() - began < 0.25, "sooner than any election timeout"
        assert second.status().term == term + 1


async def test_a_majority_that_lost_its_logs_does_not_begin_anew(tmp_path: Path) -> None:
    """What the third one knows would be gone; only whoever never had a log begins one."""
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        losers = [address for address in cluster.quorum if address != first]
        for address in losers:
            await compacted(cluster, address)
            await cluster.kill(address)
            (cluster.directory_of(address) / "snapshot").unlink()
        await cluster.kill(first)
        for address in losers:
            await cluster.start(address)
        await asyncio.sleep(1.5)
        assert all(replica.status().learner for replica in cluster.running.values())


@pytest.mark.parametrize("loss", ["damaged", "missing", "everything"])
async def test_one_that_lost_its_log_votes_only_once_it_is_filled(tmp_path: Path, loss: str) -> None:
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        lost, other = (address for address in cluster.quorum if address != first)
        await compacted(cluster, first)
        await compacted(cluster, lost)
        await cluster.stop(lost)
        snapshot = cluster.directory_of(lost) / "snapshot"
        if loss == "damaged":
            snapshot.write_bytes(snapshot.read_bytes()[:-1])
        elif loss == "missing":
            snapshot.unlink()
        else:
            shutil.rmtree(cluster.directory_of(lost))
        await cluster.kill(first)
        again = await cluster.start(lost)
        await asyncio.sleep(1.5)
        assert again.status().learner
        assert not cluster.running[other].status().quorum, "with its vote, what only the two others knew could be lost"
        await cluster.start(first)
        await cluster.all_know("kept")
        await eventually(lambda: not again.status().learner)
        await cluster.kill(first)
        await cluster.leader()


async def test_a_new_cluster_begins_with_any_two_of_three(tmp_path: Path) -> None:
    cluster = Trio(tmp_path)
    alone = await cluster.start(cluster.quorum[0])
    try:
        await asyncio.sleep(0.8)
        assert alone.status().learner
        await cluster.start(cluster.quorum[1])
        await filled(cluster)
        third = await cluster.start(cluster.quorum[2])
        await cluster.all_know("kept")
        await eventually(lambda: not third.status().learner)
    finally:
        for address in list(cluster.running):
            await cluster.stop(address)


async def test_where_one_configuration_is_enforced_another_one_is_ignored_on_both_sides(tmp_path: Path) -> None:
    other_words = replace(SHARED, health=HealthPolicy(2))
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        apart = next(address for address in cluster.quorum if address != first)
        await cluster.stop(apart)
        odd = await cluster.start(apart, shared=other_words, enforces=True)
        await eventually(lambda: len(odd.status().ignored) == 2)
        assert "node_health.checks_before_routing: 2 here, 1 there" in odd.status().ignored[first]
        await eventually(lambda: apart in cluster.running[first].status().ignored)
        seen = cluster.running[first].status()
        assert "it enforces a single one: node_health.checks_before_routing: 1 here, 2 there" in seen.ignored[apart]
        assert seen.quorum
        assert not odd.status().quorum
        await cluster.running[first].propose(passed(first, "later", 2))
        assert "later" not in odd.state.nodes
        await cluster.stop(apart)
        await cluster.start(apart)
        await cluster.all_know("later")
        await eventually(lambda: not cluster.running[first].status().ignored)


async def test_where_none_is_enforced_another_configuration_is_told_on_both_sides(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        apart = next(address for address in cluster.quorum if address != first)
        await cluster.stop(apart)
        odd = await cluster.start(apart, shared=replace(SHARED, health=HealthPolicy(2)))
        await eventually(lambda: "checks_before_routing: 2 here, 1 there" in odd.status().differs.get(first, ""))
        await eventually(lambda: "1 here, 2 there" in cluster.running[first].status().differs.get(apart, ""))


async def test_a_load_balancer_that_introduces_itself_anew_is_judged_anew_and_deposes_nobody(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        first = await filled(cluster)
        term = cluster.running[first].status().term
        other = replace(SHARED, health=HealthPolicy(2))
        hellos = {address: Hello(address, tuple(sorted(cluster.quorum)), other) for address in cluster.quorum}
        cluster.running[first].introduce(hellos.pop(first))
        await eventually(lambda: cluster.running[first].status().differs.keys() == hellos.keys())
        await eventually(lambda: all(first in cluster.running[apart].status().differs for apart in hellos))
        for apart, hello in hellos.items():
            cluster.running[apart].introduce(hello)
        await eventually(lambda: not any(running.status().differs for running in cluster.running.values()))
        assert {running.status().leader for running in cluster.running.values()} == {first}
        assert cluster.running[first].status().term == term


async def test_lists_may_differ_by_one_member_while_they_change_and_not_by_two(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        for address in cluster.quorum:
            await leader.propose(replace(announce(address), members=tuple(sorted(cluster.quorum))))
        await cluster.all_know()
        apart = cluster.quorum[0]
        await cluster.kill(apart)
        fourth, fifth = free_addresses(2)
        with pytest.raises(ConfigError, match="change one at a time"):
            await cluster.start(apart, members=(*cluster.quorum, fourth, fifth))
        changing = await cluster.start(apart, members=(*cluster.quorum, fourth))
        await cluster.leader()
        other = next(replica for address, replica in cluster.running.items() if address != apart)
        await eventually(lambda: other.status().differs.get(apart) == f"it lists {fourth} too")
        await eventually(lambda: set(changing.status().differs.values()) == {f"it does not list {fourth}"})


def test_both_sides_of_a_hello_come_to_the_same_end() -> None:
    ours = Hello("a", ("a", "b", "c"), SHARED)
    for theirs in (
        Hello("b", ("a", "b", "c"), SHARED),
        Hello("b", ("a", "b", "c"), replace(SHARED, health=HealthPolicy(9))),
        Hello("b", ("a", "b", "c"), replace(SHARED, health=HealthPolicy(9)), enforces=True),
        Hello("b", ("a", "b", "c", "d"), SHARED),
        Hello("b", ("a", "b", "c", "d", "e"), SHARED),
        Hello("b", ("a", "b", "d"), SHARED),
    ):
        here, there = judge(ours, theirs), judge(theirs, ours)
        assert (bool(here.ignored), bool(here.differs)) == (bool(there.ignored), bool(there.differs))


@pytest.mark.parametrize(
    ("candidate", "hears_leader", "yes"),
    [
        (Standing(5, 4, 10), False, True),
        (Standing(5, 4, 10), True, False),
        (Standing(5, 4, 9), False, False),
        (Standing(5, 3, 99), False, False),
        (Standing(4, 4, 10), False, False),
        (Standing(6, 1, 1), True, True),
    ],
)
def test_who_would_be_voted_for(candidate: Standing, hears_leader: bool, yes: bool) -> None:
    assert would_vote(candidate, Standing(5, 4, 10, hears_leader)) == yes
