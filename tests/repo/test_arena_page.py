"""docs/arena.md: its entry can be scored as it says; its tables are of the recorded entries."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkouts import ROOT

from faro_ops.advise.arena.scenarios import scenarios
from studies.arena import run, tables
from studies.arena.figures import arena_caption, ranks_and_scenarios
from studies.arena.scores import over_worlds, read_scenario

GUIDE = (ROOT / "docs" / "arena.md").read_text()
FILE = re.search(r"`my_entry.py`:\n\n```python\n(.*?)```", GUIDE, re.DOTALL)[1]
COMMANDS = re.search(r"```sh\n(.*?)```", GUIDE, re.DOTALL)[1].splitlines()
AGENT = re.search(r"```python\n(import gymnasium.*?)```", GUIDE, re.DOTALL)[1]


@pytest.mark.slow
def test_a_reader_scores_an_idea_by_following_the_page(tmp_path):
    (tmp_path / "my_entry.py").write_text(FILE)
    command = COMMANDS[0].replace("faro ", f"{shlex.quote(sys.executable)} -m faro_ops.cli ", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    entry = json.loads((tmp_path / "one.json").read_text())
    assert done.stdout == f"hidden seed: {entry['hidden_seed']}\n"
    assert entry["policy"] == "LongestQueues"
    assert [row["kind"] for row in entry["scenarios"]] == ["public", "hidden"]
    assert 0 < entry["score"]["public"]["regret"] < 0.5


def test_the_example_for_agents_runs(monkeypatch):
    pytest.importorskip("gymnasium", reason="pip install gymnasium: the extra `arena`")
    monkeypatch.syspath_prepend(str(ROOT))
    names: dict = {}
    exec(AGENT, names)
    assert names["reward"] <= 0
    assert names["policy"].name == "Agent"


def test_every_entry_of_the_list_is_recorded_on_the_quick_set_with_one_hidden_seed():
    kept = tables.kept()
    quick = [one.name for one in scenarios().values() if one.quick]
    assert {entry["entry"] for entry in kept.values()} == set(run.ENTRIES)
    beyond = {one.name for one in scenarios().values() if not one.quick}
    for entry in kept.values():
        recorded = [row["scenario"] for row in entry["scenarios"] if row["scenario"] not in beyond]
        assert recorded == [name for name in quick for _ in range(2)]
    assert len({entry["hidden_seed"] for entry in kept.values()}) == 1
    # The hash of the inputs changes with the last bit of a draw, which differs between processors,
    # so entries have to agree in the bound of their requests instead.
    bounds = [[row["bound"] for row in entry["scenarios"]] for entry in kept.values()]
    for of_entry in bounds:
        assert of_entry == pytest.approx(bounds[0], abs=run.TOLERANCE)


def test_the_entries_of_language_models_are_recorded_with_the_hidden_seed_of_the_others():
    for scenario, listed in run.OF_SCENARIO.items():
        kept = read_scenario(ROOT / "data/arena", scenario)
        assert {entry["entry"] for entry in kept.values()} == set(listed)
        others = {entry["hidden_seed"] for entry in tables.kept().values()}
        assert {entry["hidden_seed"] for entry in kept.values()} == others
        for entry in kept.values():
            assert [row["scenario"] for row in entry["scenarios"]] == [scenario] * 2
            assert min(row["regret"] for row in entry["scenarios"]) > -1e-3
        for seed in range(2):
            inputs = {entry["scenarios"][seed]["inputs_sha256"] for entry in kept.values()}
            assert len(inputs) == 1


def test_no_entry_loses_less_than_the_bound():
    for entry in tables.kept().values():
        assert min(row["regret"] for row in entry["scenarios"]) > -1e-3


def entry(policy, regret):
    """A recorded entry with a constant regret in two scenarios."""
    rows = [
        {"scenario": name, "regret": regret, "blocks": [regret * 20] * 12, "minutes": [20] * 12}
        for name in "ab"
    ]
    for row in rows:
        row |= {"decision_ms_p50": 1.0, "bound": 0.0, "jobs": 10}
    part = {"regret": regret}
    return {"policy": policy, "score": {"public": part, "hidden": part}, "scenarios": rows}


def test_a_scenario_that_is_added_later_counts_and_replaces_what_it_was():
    kept = {**entry("A", 0.1), "sha256": {"library": "old"}}
    kept["score"] = {"public": {}, "hidden": {}}
    for row in kept["scenarios"]:
        row |= {"kind": "hidden" if row["scenario"] == "b" else "public"}
        row |= {"decision_ms_p99": 2.0}
    more = copy.deepcopy(kept) | {"sha256": {"library": "new"}}
    more["scenarios"] = [
        row | {"scenario": "c", "blocks": [0.5 * 20] * 12} for row in more["scenarios"]
    ]
    for _ in range(2):  # a second time changes nothing
        kept = run.with_scenario(kept, "c", more)
        assert [row["scenario"] for row in kept["scenarios"]] == ["a", "b", "c", "c"]
        assert kept["score"]["public"]["regret"] == pytest.approx(0.3)
    assert kept["sha256"] == {"library": "old"}
    assert kept["added"] == {"c": {"library": "new"}}
    text = " ".join(tables.code({"A": kept}).split())
    assert "The scenario c was added later; one version scored it for these entries." in text


def test_a_scenario_beyond_the_quick_set_is_shown_and_changes_no_mean_and_no_rank():
    kept = {**entry("A", 0.1), "sha256": {"library": "old"}}
    for row, kind in zip(kept["scenarios"], ("public", "hidden")):
        row |= {"kind": kind, "decision_ms_p99": 2.0}
    more = copy.deepcopy(kept) | {"sha256": {"library": "new"}}
    for row in more["scenarios"]:
        row |= {"scenario": "shared-36-v1", "quick": False, "regret": 0.5}
        row["blocks"] = [0.5 * 20] * 12
    both = run.with_scenario(kept, "shared-36-v1", more)
    assert both["score"]["public"]["regret"] == pytest.approx(0.1)
    one, other = {"A": both, "B": entry("B", 0.2)}, {"A": kept, "B": entry("B", 0.2)}
    by_rank = [tables.ranking(entries).splitlines()[2:] for entries in (one, other)]
    assert by_rank[0][1] == by_rank[1][1]
    assert by_rank[0][0] == by_rank[1][0].replace("| a, b |", "| a, b, shared-36-v1 |")
    head, _, bound, *rows = tables.by_scenario(one).splitlines()
    assert head.endswith("| shared-36 |")
    assert bound.endswith("| 0.0% |")
    assert [row.split(" | ")[-1] for row in rows] == ["**50.0%** |", "- |"]


def entry_of_worlds(policy, regret):
    """A recorded entry with these regrets, (scenarios, worlds)."""
    one = entry(policy, 0.1)
    one["scenarios"] = [
        one["scenarios"][0] | {"scenario": str(scenario), "regret": value}
        for scenario, of_scenario in enumerate(regret)
        for value in of_scenario
    ]
    return one


def test_two_entries_that_take_turns_share_their_ranks_and_a_third_is_apart():
    rng = np.random.default_rng(0)
    one, two = rng.uniform(0.1, 0.3, (2, 9, 2))
    regrets = {"A": one, "B": two, "C": np.maximum(one, two) + rng.uniform(0.1, 0.3, (9, 2))}
    entries = {name: entry_of_worlds(name, regret) for name, regret in regrets.items()}
    rows = tables.ranking(entries).splitlines()[2:]
    assert ["(1 to 2)" in rows[0], "(1 to 2)" in rows[1], "(3 to 3)" in rows[2]] == [True] * 3


def test_the_interval_of_two_worlds_in_each_of_nine_scenarios_covers_the_mean():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(500):
        spread = rng.lognormal(0, 1, (9, 1))  # scenarios differ in how much their worlds do
        _, low, high = over_worlds(spread * rng.standard_normal((9, 2)))
        held += low <= 0 <= high
    assert 0.93 <= held / 500 <= 0.985


def test_a_score_that_moves_by_more_than_a_millionth_does_not_reproduce():
    kept = entry("A", 0.1)
    for row in kept["scenarios"]:
        row["kind"] = "public"
    now = copy.deepcopy(kept)
    now["scenarios"][0].update(decision_ms_p50=9.0, regret=0.1 + 1e-8)
    assert run.differences(kept, now) == []
    now["scenarios"][1]["blocks"][3] += 1e-5
    (line,) = run.differences(kept, now)
    assert line.startswith("A, b, public seed: blocks was ")
    assert Path(run.KEPT) == ROOT / "data" / "arena"


def test_the_picture_has_every_entry_and_scenario_and_its_caption_names_the_best():
    entries = tables.kept()
    left, right = ranks_and_scenarios(entries).axes
    assert [text.get_text() for text in left.get_yticklabels()] == list(entries)
    assert len(right.get_xticklabels()) == len(
        {row["scenario"] for row in next(iter(entries.values()))["scenarios"]}
    )
    assert len(right.texts) == len(entries) * len(right.get_xticklabels())
    assert arena_caption(entries).startswith(f"{next(iter(entries))} has the least regret, ")
