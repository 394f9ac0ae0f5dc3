"""The ablation: the paper's steps in the order of its Figure 16, then our own, one at a time."""

from dataclasses import dataclass, replace
from typing import Any

from faro_lib.policies.factories import PolicyContext
from faro_lib.policies.faro import FALLBACK_MODEL, Faro, tuned, tuned_options
from faro_lib.protocol import Policy
from studies.paper.published import ExactPaperFaro, PaperFaro

PAPER, OURS = "paper", "ours"
OBJECTIVE = "FairSum"  # the objective of the published ablation


@dataclass(frozen=True, slots=True)
class Variant:
    """One step of the ablation."""

    name: str
    adds: str  # how it differs from the previous step
    policy: Policy
    source: str  # PAPER or OURS
    published: str = ""  # name of the step in the published table


def paper_steps(context: PolicyContext, objective: str = OBJECTIVE) -> list[Variant]:
    """The paper's steps.

    The first has a step utility, no forecast and no reaction. The last is the complete policy.
    """
    final = PaperFaro(context.require("forecaster", "the ablation"), objective=objective)
    policy = replace(
        final,
        latency_model="upper-bound",
        utility="precise",
        predictive=False,
        quantile=None,
        adaptive=False,
        shrink=False,
        reactive=False,
    )
    about = f"quantile {final.quantile} of 100 samples, higher while replicas are free"
    bare = "step utility, bursts, no forecast, no reaction, no shrinking"
    steps: list[tuple[str, str, str, tuple[str, ...]]] = [
        ("conf1", "no relaxation", bare, ()),
        ("conf2", "+ relaxation", "inverse utility instead of a step", ("utility",)),
        ("conf3", "+ M/D/c", "queueing instead of simultaneous arrivals", ("latency_model",)),
        ("conf4", "+ prediction", "a point forecast of 7 minutes", ("predictive",)),
        ("conf5", "+ reaction", "one more replica after 30 s above the SLO", ("reactive",)),
        ("conf6", "+ shrinking", "releases replicas without a benefit", ("shrink",)),
        ("final", "+ probability", about, ("quantile", "adaptive")),
    ]
    variants = []
    for published, name, adds, fields in steps:
        policy = replace(policy, name=name, **{field: getattr(final, field) for field in fields})
        variants.append(Variant(name, adds, policy, PAPER, published))
    return variants


# Name, what it adds, and the fields of `Faro` that it sets.
OUR_STEPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "+ early and often",
        "decides every {interval_s:g} s, from {first_s:g} s on",
        ("first_s", "interval_s", "phase_s"),
    ),
    ("+ nowcast", "uses the counts of the current minute", ("nowcast",)),
    (
        "+ slow starts",
        "{cold_start_minutes:g} minutes until a new replica serves",
        ("cold_start_minutes",),
    ),
    (
        "+ switching cost",
        "changing a job's replicas costs {switching_cost:g} utility",
        ("switching_cost",),
    ),
    (
        "+ small spread",
        "the weight of the spread is {gamma:g} instead of the number of jobs",
        ("gamma",),
    ),
    (
        "+ deficit weighting",
        "weights jobs by past losses, exponent {deficit_weighting:g}",
        ("deficit_weighting",),
    ),
    (
        "+ reserve",
        "idle cores go to the jobs that would have needed them in past minutes",
        ("reserve",),
    ),
)


def our_steps(
    context: PolicyContext, objective: str = OBJECTIVE, options: dict[str, Any] | None = None
) -> list[Variant]:
    """Our steps, from the paper's complete policy to `policies.faro.tuned`.

    options : hyperparameters of our Faro; None: the tuned defaults.
    """
    options = tuned_options(objective) if options is None else options
    forecaster = context.require("forecaster", "the ablation")
    exact = ExactPaperFaro(forecaster, name="+ exact solver", objective=objective)
    paths = Faro(forecaster, name="+ sample paths", objective=objective)
    if context.latency_model is None:
        name, about = "+ latency model", f"the formula {FALLBACK_MODEL!r} instead of half M/M/c"
    else:
        name = "+ measured latency"
        about = "latencies measured at constant rates instead of half M/M/c"
    policy = replace(paths, name=name, latency_model=tuned(context, objective).latency_model)
    mean = f"the mean utility over {paths.samples} paths instead of a quantile"
    variants = [
        Variant(exact.name, "an optimal integer allocation instead of COBYLA", exact, OURS),
        Variant(paths.name, mean, paths, OURS),
        Variant(policy.name, about, policy, OURS),
    ]
    stepped = {field for _, _, fields in OUR_STEPS for field in fields}
    others = tuple(field for field in options if field not in stepped)
    rest = ("+ the rest", "all other options: " + ", ".join(others), others)
    for name, adds, fields in (*OUR_STEPS, rest):
        changes = {field: options[field] for field in fields if field in options}
        if changes:
            policy = replace(policy, name=name, **changes)
            variants.append(Variant(name, adds.format(**options), policy, OURS))
    return variants


def variants(context: PolicyContext, objective: str = OBJECTIVE) -> list[Variant]:
    """All steps: the paper's, then our own."""
    return [*paper_steps(context, objective), *our_steps(context, objective)]
