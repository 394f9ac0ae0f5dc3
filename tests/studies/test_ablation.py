"""The ablation: each step changes one thing, from the paper's first step to our tuned policy."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from faro_lib import forecast
from faro_lib.experiments.trials import trial_draws
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.faro import tuned, tuned_options
from faro_lib.workload.synthetic import synthetic
from studies.ablation import figures as figure
from studies.ablation.run import our_steps, paper_steps, variants
from studies.comparison.run import compare, limits_of
from studies.paper.published import ExactPaperFaro, PaperFaro
from studies.tables.run_tables import summaries

ROOT = Path(__file__).parents[2]

TRACES = synthetic(seed=3, jobs=4, days=2, minutes=60)


@pytest.fixture(scope="module")
def context():
    """Its latency table is a placeholder, because no policy here that is simulated reads it."""
    return PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES), latency_model="mdc")


def differing(one, other):
    return {
        field.name
        for field in fields(one)
        if getattr(one, field.name) is not getattr(other, field.name)
    } - {"name"}


def options(policy):
    return {
        field.name: getattr(policy, field.name) for field in fields(policy) if field.name != "name"
    }


def test_the_steps_end_in_the_papers_policy_and_in_the_tuned_defaults(context):
    assert options(paper_steps(context, "Sum")[-1].policy) == options(
        make("Faro-Sum (paper)", context)
    )
    assert options(our_steps(context, "Sum")[-1].policy) == options(tuned(context, "Sum"))


def test_every_step_of_the_paper_changes_options_that_no_other_step_changes(context):
    steps = [step.policy for step in paper_steps(context)]
    changed = [differing(one, other) for one, other in zip(steps, steps[1:])]
    assert all(changed)
    assert len(set().union(*changed)) == sum(map(len, changed))


def test_an_option_that_no_step_names_becomes_a_step_of_its_own(context):
    last = our_steps(context, options=tuned_options() | {"samples": 50})[-1]
    assert last.policy.samples == 50
    assert "samples" in last.adds


def test_an_option_that_is_not_set_has_no_step(context):
    names = [step.name for step in our_steps(context, options={"nowcast": True})]
    assert names == ["+ exact solver", "+ sample paths", "+ measured latency", "+ nowcast"]


def test_the_latency_step_names_the_formula_where_nothing_was_measured(context):
    steps = {step.name: step for step in our_steps(replace(context, latency_model=None))}
    assert "+ measured latency" not in steps
    assert steps["+ latency model"].adds == "the formula 'mgc' instead of half M/M/c"


def test_the_exact_solver_is_never_worse_than_cobyla_on_the_same_decision(context):
    from faro_lib.protocol import Observation
    from faro_lib.utility import build_table

    jobs = len(TRACES.jobs)
    zero = np.zeros(jobs)
    per_min = np.array([[900.0], [400.0], [1500.0], [100.0]])
    running = np.array([2, 2, 2, 2])
    seen = Observation(
        now_s=60,
        capacity=14,
        minute=1,
        arrivals_per_min=per_min,
        mean_latency_s=zero,
        tail_latency_s=zero,
        ongoing=zero,
        running=running,
        starting=zero,
        target=running,
        terminating=zero,
        changing=zero > 0,
        drop=zero,
    )
    table = build_table(
        TRACES.jobs, per_min[:, None] / 60, running, cold_start_minutes=0.0, max_replicas=14
    )
    values = []
    for kind in (PaperFaro, ExactPaperFaro):
        policy = kind(context.forecaster, predictive=False, shrink=False)
        _, plan = policy.decide(policy.start(TRACES.jobs), seen)
        assert plan.target.sum() <= 14
        values.append(table.value[np.arange(jobs), np.minimum(plan.target, table.columns)].sum())
    assert values[1] >= values[0] - 1e-9


def test_every_published_step_has_a_variant():
    names = {
        step.published: step.name
        for step in paper_steps(PolicyContext(TRACES.jobs, forecaster=object()))
    }
    table = figure.published_ablation(ROOT / "data" / "published", names)
    assert table.groupby("capacity_cores")["variant"].nunique().to_dict() == {32: 7, 36: 7, 40: 7}
    assert np.isclose(
        table.query("capacity_cores == 32 and variant == 'no relaxation'")[
            "lost_utility_published"
        ],
        2.11342,
    ).all()


def test_a_summary_equals_that_of_the_complete_comparison(context):
    day = TRACES.workload().between(0, 20)
    policies = {name: make(name, context) for name in ("FairShare", "AIAD")}
    short = summaries(day, policies, 12, 2, report=None)
    limit = limits_of(day, next(trial_draws(day, 1)), [12])
    whole = compare(day, policies, 12, 2, report=None)
    columns = ["policy", "trial", "lost_utility", "slo_violation_rate", "drop_rate"]
    assert short[columns].equals(whole.summary[columns])
    assert limit["lost_utility"].tolist() == whole.limit["lost_utility"].tolist()[:1]


def test_the_caption_names_the_step_that_gains_most(context):
    day = TRACES.workload().between(0, 20)
    steps = variants(context, "Sum")
    summary = summaries(day, {steps[0].name: steps[0].policy}, 12, 1, report=None)
    lost = dict(
        zip(
            [step.name for step in steps],
            [3.0, 2.5, 2.4, 2.3, 2.2, 2.1, 2.0, 1.9, 1.8, 1.0, 0.9, 0.8, 0.7, 0.65, 0.6],
        )
    )
    rows = [
        summary.iloc[0].to_dict()
        | {"variant": step.name, "source": step.source, "lost_utility": lost[step.name]}
        for step in steps
    ]
    import pandas as pd

    text = figure.ablation_caption(pd.DataFrame(rows))
    assert "from 3.00 to 2.00, and ours to 0.60" in text
    assert "measured latency gains most (0.80)" in text
    assert "costs" not in text


def test_the_caption_names_a_step_that_costs():
    import pandas as pd

    lost = {"a": ("paper", 1.0), "b": ("paper", 0.5), "c": ("ours", 0.7), "d": ("ours", 0.3)}
    rows = [
        {"variant": v, "source": s, "capacity_cores": 32, "trial": 0, "lost_utility": x}
        for v, (s, x) in lost.items()
    ]
    assert "d gains most (0.40); c costs most (0.20)" in figure.ablation_caption(pd.DataFrame(rows))
