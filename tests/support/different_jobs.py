"""Tables of every stage for jobs that all differ: service times, rates, cores and SLOs."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.workload import Job, Traces
from studies.ablation import remaining
from studies.days.run import CLAIRVOYANT, paired
from studies.llm import stage as llm_stage
from studies.misspecification import world as misspecification
from studies.replicas.run import ASSUMED, LEADER, SERVICES
from studies.sharing import world as sharing
from studies.tables.frames import Tables, write_tables
from studies.traces.files import write_traces

JOBS = (
    Job(
        "ads-ranking",
        model="ads-ranking",
        service_time_s=0.002,
        slo_s=0.02,
        cores=0.5,
        weight=3.0,
        quantile=0.999,
    ),
    Job("vision", model="vision", service_time_s=0.15, slo_s=0.6, cores=1.0, quantile=0.99),
    Job(
        "speech",
        model="speech",
        service_time_s=1.0,
        slo_s=4.0,
        cores=2.0,
        min_replicas=2,
        quantile=0.95,
    ),
    Job(
        "translate",
        model="translate",
        service_time_s=5.0,
        slo_s=15.0,
        cores=1.0,
        weight=0.5,
        quantile=0.9,
    ),
    Job(
        "assistant-70b",
        model="assistant-70b",
        service_time_s=40.0,
        slo_s=120.0,
        cores=4.0,
        min_replicas=2,
        quantile=0.99,
    ),
    Job("fraud", model="fraud", service_time_s=0.04, slo_s=0.1, cores=1.5, quantile=0.5),
)
PER_MINUTE = np.array([690.0, 200.0, 25.0, 14.0, 4.0, 90.0])
NAMES = [job.name for job in JOBS]
MINUTES = 1440
CAPACITIES = (48, 36)
POLICIES = ("FairShare", "Oneshot", "AIAD", "Faro-FairSum (paper)", "Faro-Sum")
TRIALS = (0, 1)
KEY = ["policy", "capacity_cores", "trial"]


def counts(rng) -> np.ndarray:
    """Requests (4 days, 1 sample, jobs, minutes): a day with a peak, and a burst at minute 900."""
    hour = np.linspace(0, 2 * np.pi, MINUTES)
    mean = PER_MINUTE[:, None] * (1 + 0.9 * np.sin(hour + np.arange(len(JOBS))[:, None]))
    requests = rng.poisson(mean, (4, 1, *mean.shape))
    requests[-1, 0, 4, 900] = 40
    return requests


def summary_of(rng, **key) -> pd.DataFrame:
    """One row per combination of `key`, with every measure."""
    table = pd.DataFrame(itertools.product(*key.values()), columns=list(key))
    base = (
        table["policy"].map({name: 1.5 - 0.2 * place for place, name in enumerate(POLICIES)})
        if "policy" in key
        else 1
    )
    lost = base * (1 + rng.random(len(table)) / 5)
    return table.assign(
        lost_utility=lost,
        lost_effective_utility=1.1 * lost,
        slo_violation_rate=lost / 20,
        drop_rate=lost / 50,
        replicas_used_mean=30.0,
        decision_ms_p50=2.0,
        decision_ms_p99=9.0,
        requests=1_000_000,
        wall_s=1.0,
    )


def simulated(rng) -> Tables:
    """A comparison with all tables. A fifth of the job-minutes have no requests."""
    rows = pd.MultiIndex.from_product(
        [POLICIES, CAPACITIES, TRIALS, NAMES, range(MINUTES + 1)], names=[*KEY, "job", "minute"]
    )
    minutes = rows.to_frame(index=False).assign(utility=rng.random(len(rows)).round(2))
    slo_s = minutes["job"].map({job.name: job.slo_s for job in JOBS})
    minutes["tail_latency_s"] = slo_s * rng.lognormal(-1, 1, len(rows))
    idle = rng.random(len(rows)) < 0.2
    minutes.loc[idle, ["utility", "tail_latency_s"]] = np.nan
    running = minutes[minutes["minute"] < MINUTES].assign(
        running=lambda one: 1 + (one.index // 7) % 9
    )
    best = minutes[minutes["policy"] == "Faro-Sum"].drop(columns="policy").assign(running=2)
    lost = 1 - minutes[minutes["minute"] < MINUTES].set_index(KEY)["utility"]
    summary = summary_of(rng, policy=POLICIES, capacity_cores=CAPACITIES, trial=TRIALS).set_index(
        KEY
    )
    summary = summary.assign(lost_utility=lost.groupby(level=KEY).sum() / MINUTES).reset_index()
    limit = summary[summary["policy"] == "Faro-Sum"][["capacity_cores", "trial"]].assign(
        lost_utility=0.2
    )
    decisions = minutes[(minutes["policy"] == "Faro-Sum") & (minutes["minute"] % 5 == 0)]
    decisions = decisions.assign(
        time_s=60.0 * decisions["minute"],
        replicas_target=2,
        predicted_tail_latency_s=slo_s * rng.lognormal(-1, 1, len(rows)),
    )
    return Tables(
        summary, minutes, decisions, running[[*KEY, "job", "minute", "running"]], limit, best
    )


SHARING = [
    (sharing.ISOLATED, 1, "late"),
    (sharing.LEADER, 2, "late"),
    (sharing.LEADER, 2, "early"),
    (sharing.PLACED_ONCE, 2, "late"),
    (sharing.LEAST_RECENT, 2, "lru"),
    (sharing.EVERYWHERE, 6, "late"),
]


def write_all_tables(folder: Path) -> None:
    """Write the tables of every stage into a folder of results."""
    rng = np.random.default_rng(7)
    requests = counts(rng)
    write_traces(Traces(JOBS, requests[:-1], requests[-1]), folder / "traces")
    tables = simulated(rng)
    write_tables(tables, folder / "simulate")

    def write(path, table):
        path = folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)

    for world, names in (("six", POLICIES), ("other", (POLICIES[0], POLICIES[-1]))):
        runs = itertools.product([13, 14], [12, 24], [*names, CLAIRVOYANT], [0, 1], range(12))
        blocks = pd.DataFrame(runs, columns=["day", "capacity_cores", "policy", "trial", "block"])
        lost = rng.gamma(2, 20, len(blocks)) * (
            1 + 0.3 * blocks["policy"].map([*names, CLAIRVOYANT].index)
        )
        blocks = blocks.assign(minutes=120, lost=lost, slo_violation_rate=0.1)
        write(f"days/{world}/paired.csv", paired(blocks, "Faro-Sum"))

    kinds = pd.DataFrame(
        itertools.product(CAPACITIES, (LEADER, ASSUMED, "HPA")),
        columns=["capacity_cores", "policy"],
    )
    kinds = kinds.assign(**{f"lost_{name}": rng.random(len(kinds)) for name in SERVICES})
    kinds["lost_utility"] = kinds.filter(like="lost_").sum(axis=1)
    shared = pd.DataFrame(
        [
            (policy, models, router, cores, 0.1 * models + rng.random())
            for policy, models, router in SHARING
            for cores in (8, 12)
        ],
        columns=["policy", "models", "router", "capacity_cores", "lost_utility"],
    )
    write("sharing/runs.csv", shared)
    blocks = itertools.product((11, 12), (180, 660), CAPACITIES, llm_stage.POLICIES)
    blocks = pd.DataFrame(blocks, columns=["day", "start_min", "capacity_cores", "policy"])
    missed = rng.integers(10, 500, len(blocks))
    write("llm/runs.csv", blocks.assign(requests=1000, missed=missed))
    policies = (*misspecification.FAROS, "HPA", "RayServe")
    wrong = itertools.product(("as stated", "±40 %"), CAPACITIES, policies, (0, 1))
    wrong = pd.DataFrame(wrong, columns=["world", "capacity_cores", "policy", "trial"])
    wrong = wrong.assign(lost_later=rng.random(len(wrong)), learned_error=0.03)
    write("misspecification/runs.csv", wrong)
    held = [
        (replica, home.name, job.name)
        for replica, home in enumerate(JOBS)
        for job in (home, JOBS[replica - 1])
    ]
    write("sharing/placement.csv", pd.DataFrame(held, columns=["replica", "home", "job"]))
    write("replicas/paired.csv", kinds.assign(difference=rng.random(len(kinds)), half=0.1))
    rho = np.linspace(0.05, 1.6, 60)
    write(
        "queueing/half_against_exact.csv",
        pd.concat(
            [
                pd.DataFrame(
                    {"rho": rho[:30], "servers": servers, "ratio": 1 + 0.2 * rho[:30] ** servers}
                )
                for servers in (1, 4, 16)
            ]
        ),
    )
    write(
        "queueing/relaxed_latency.csv",
        pd.concat(
            [
                pd.DataFrame(
                    {"rho": rho, "latency_over_service": np.minimum(1 + rho**3, cap), "kind": kind}
                )
                for kind, cap in (("precise", 9), ("relaxed", 5))
            ]
        ),
    )
    write(
        "queueing/drop_penalty.csv",
        pd.concat(
            [
                pd.DataFrame({"drop": rho / 6, "penalty": 1 - rho / 2, "kind": kind})
                for kind in ("precise", "relaxed")
            ]
        ),
    )

    forecasters = ["bayes", "bayes (not recalibrated)", "persistence", "ar", "oracle"]
    scored = pd.DataFrame(
        itertools.product(forecasters, [*NAMES, "all"]), columns=["forecaster", "job"]
    )
    coverage = rng.uniform(0.6, 0.95, len(scored))
    write(
        "forecast/scores.csv",
        scored.assign(rmse_per_min=40.0, crps_per_min=20.0, wql=0.1, coverage_80=coverage),
    )
    ahead = pd.DataFrame(
        itertools.product(forecasters[:4], range(1, 8), (0.5, 0.8)),
        columns=["forecaster", "minute", "level"],
    )
    write(
        "forecast/coverage.csv",
        ahead.assign(coverage=ahead["level"] * rng.uniform(0.1, 1.2, len(ahead))),
    )
    gains = [("CRPS", "ar", -1.5, -2.5, 0.5), ("WQL", "persistence", -0.02, -0.03, -0.01)]
    write(
        "forecast/gains.csv",
        pd.DataFrame(gains, columns=["score", "rival", "difference", "low", "high"]),
    )
    band = pd.DataFrame(itertools.product(NAMES, range(20, MINUTES)), columns=["job", "minute"])
    band["requests"] = [
        requests[-1, 0, NAMES.index(job), minute]
        for job, minute in zip(band["job"], band["minute"])
    ]
    shown = band["job"].isin(["ads-ranking", "assistant-70b"])
    band = band.assign(
        mean=0.9 * band["requests"],
        low=0.5 * band["requests"],
        high=1.2 * band["requests"],
        shown=shown,
    )
    write("forecast/bands.parquet", band)
    levels = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    write(
        "forecast/steps.parquet",
        pd.concat(
            [
                pd.DataFrame(
                    {
                        "job": job,
                        "level": levels,
                        "observed": rate * (levels - 0.5),
                        "replicated": 1.1 * rate * (levels - 0.5),
                    }
                )
                for job, rate in zip(NAMES, PER_MINUTE)
            ]
        ),
    )

    latency = np.linspace(0.2, 3, 40)
    write(
        "sloppify/utility.csv",
        pd.concat(
            [
                pd.DataFrame(
                    {
                        "latency_over_slo": latency,
                        "utility": np.minimum(1, 1 / latency**power),
                        "kind": f"relaxed, alpha = {power}",
                    }
                )
                for power in (1, 2, 4)
            ]
        ),
    )
    solvers = ["exact", "greedy", "convex", "cobyla"]
    key = {
        "objective": ["Sum", "FairSum"],
        "formulation": ["precise", "relaxed"],
        "solver": solvers,
    }
    answers = pd.DataFrame(
        itertools.product(*key.values(), CAPACITIES, range(3)),
        columns=[*key, "capacity_cores", "window"],
    )
    slow = (answers["solver"] == "cobyla") & (answers["window"] > 0)
    seconds = answers["solver"].map({"exact": 3e-4, "greedy": 1e-4, "convex": 0.02, "cobyla": 4.0})
    gap = np.where(answers["solver"] == "exact", 0, rng.uniform(0, 0.3, len(answers)))
    answers = answers.assign(jobs=6, seconds=seconds, gap_per_job=gap, value=5.0)[~slow]
    enlarged = pd.DataFrame(
        itertools.product(solvers[:2], (6, 12, 600)), columns=["solver", "jobs"]
    ).assign(
        formulation="relaxed",
        objective="Sum",
        capacity_cores=48,
        window="0, enlarged",
        gap_per_job=0.0,
    )
    enlarged = enlarged.assign(value=0.9 * enlarged["jobs"], seconds=1e-4 * enlarged["jobs"])
    write(
        "sloppify/solvers.csv",
        pd.concat([answers.assign(window=answers["window"].astype(str)), enlarged]),
    )
    scored = pd.DataFrame(
        itertools.product(
            CAPACITIES, key["formulation"], ("exact", "cobyla"), key["formulation"], range(3)
        ),
        columns=["capacity_cores", "formulation", "solver", "scored_by", "window"],
    )
    write("sloppify/scored.csv", scored.assign(realised=rng.random(len(scored))))

    variants = {
        "Oneshot": "paper",
        "+ probabilistic prediction": "paper",
        "+ measured latency": "ours",
        "+ exact solver": "ours",
    }
    steps = summary_of(rng, variant=list(variants), capacity_cores=[48], trial=TRIALS)
    write("ablation/summary.csv", steps.assign(source=steps["variant"].map(variants)))
    write("ablation/limit.csv", tables.limit[tables.limit["capacity_cores"] == 48])
    write("ablation/steps.csv", pd.DataFrame({"variant": list(variants), "published": np.nan}))
    parts = [
        remaining.AS_IS,
        remaining.START,
        remaining.FORECAST,
        remaining.MOVES,
        remaining.ALL,
        remaining.CONSTANT,
        remaining.LIMIT,
    ]
    lost = [1.2, 1.0, 1.1, 1.15, 0.7, 0.1, 0.6]
    write(
        "ablation/remaining.csv",
        pd.DataFrame({"part": parts, "lost_utility": lost, "capacity_cores": 48}),
    )
    curve = pd.DataFrame(
        itertools.product(CAPACITIES, (0, 10, 100, 1400)), columns=["capacity_cores", "minute"]
    )
    write("ablation/learning.csv", curve.assign(log_error=3 / (1 + curve["minute"] / 20)))

    settings = [
        ("cold_start_s", 5.0),
        ("cold_start_s", 120.0),
        ("forecast_error", 0.0),
        ("forecast_error", 0.5),
        ("slo_factor", 4.0),
    ]
    rows = [
        summary_of(
            rng,
            parameter=[name],
            value=[value],
            policy=["FairShare", "AIAD", "Faro-Sum"],
            trial=TRIALS,
        )
        for name, value in settings
    ]
    write("sensitivity/summary.csv", pd.concat(rows))
    clusters = [("mixed", 6, 48), ("repeated", 12, 96), ("repeated", 1000, 8000)]
    rows = [
        summary_of(
            rng, variant=[how], jobs=[jobs], capacity_cores=[cores], policy=POLICIES, trial=TRIALS
        )
        for how, jobs, cores in clusters
    ]
    write("scale/summary.csv", pd.concat(rows))
    floors = [
        {"variant": how, "jobs": jobs, "capacity_cores": cores, "trial": 0, "lost_utility": 0.1}
        for how, jobs, cores in clusters
    ]
    write("scale/limit.csv", pd.DataFrame(floors))
    write("scale/curve.csv", tables.summary.assign(start="one replica"))
    write("scale/curve_limit.csv", tables.limit)
    trial = summary_of(
        rng,
        environment=["live", "simulation"],
        policy=POLICIES[:3],
        capacity_cores=[8],
        trial=TRIALS,
    )
    trial = trial.assign(
        scale=2.0, background_cpu=0.2, niced_cpu=0.1, noisy_host=False, failed=0, unsent=0
    )
    write("live/local/summary.csv", trial)
