"""Settings and fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from browser import NAMES, Browser
from checkouts import Checkout, make_checkout
from examples import examples
from hypothesis import HealthCheck, settings

from faro_lib.workload import Traces

# These machines are shared: no test asserts an absolute time.
settings.register_profile(
    "faro", examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("faro")

collect_ignore = ["support/validate_crate.py"]  # it runs in the validator's own environment
ROOT = Path(__file__).resolve().parent.parent
EVALUATION = ROOT / "data/raw/input.json"
TRAINING = ROOT / "data/raw/top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl"


# The files that take longest begin first, so that no process is left alone with one of them at the
# end. Those of `make test-all` stand before those of `make test`.
LONGEST = [
    *("test_forecast_real", "test_golden", "test_pipeline", "test_bayes", "test_published"),
    *("test_simulate_pools", "test_arena", "test_recommend", "test_simulate_replicas"),
    *("test_apart_cluster", "test_soak", "test_calibrate", "test_service_times", "test_alerts"),
    *("test_sharing", "test_authority", "test_extending", "test_recommend_advice", "test_readme"),
    *("test_queueing", "test_replicas", "test_pairs", "test_audit", "test_faro_policies"),
    *("test_latency_table", "test_simulate_reference", "test_fuzz"),
]


def pytest_collection_modifyitems(items):
    """Run the longest files first, then notebooks, then the others. Sorting is stable."""

    def place(item) -> int:
        if item.path.stem in LONGEST:
            return LONGEST.index(item.path.stem)
        return len(LONGEST) + (item.path.suffix != ".ipynb")

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test marked k8s that is skipped although there is a cluster: it has tested nothing."""
    report = yield
    if report.skipped and item.get_closest_marker("k8s") and os.environ.get("KUBECONFIG"):
        report.outcome = "failed"
        report.longrepr = f"skipped, although KUBECONFIG is set: {call.excinfo.value}"
    return report


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """The tests neither read nor fill the user's cache of measured latencies.

    They keep that of the programs of a kind cluster, which take minutes to build.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    programs = os.environ.get("FARO_KIND_CACHE") or f"{caches}/faro-kind"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARO_KIND_CACHE", programs)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def published_traces() -> Traces:
    """The ten jobs of the paper's evaluation (`make data` fetches the files into data/raw)."""
    from faro_lib.workload.published import read_artifact

    for path in (EVALUATION, TRAINING):
        if not path.exists():
            pytest.skip(
                f"{path.relative_to(ROOT)} is not there: `make data` fetches the published traces"
            )
    return read_artifact(EVALUATION, TRAINING)


@pytest.fixture(scope="module")
def coarse_tables():
    """Latency tables are measured with few requests, in a twentieth of the time."""
    from faro_lib.simulate.measure import measure

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure.__kwdefaults__, "requests", 3000)
        patch.setattr("faro_lib.simulate.measure.WINDOW_REQUESTS", 400)
        yield


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    """A checkout of its own, with notebooks that take seconds, to run the pipeline in."""
    return make_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def browser():
    """A headless browser; $BROWSER may name another one."""
    found = [shutil.which(name) for name in (os.environ.get("BROWSER"), *NAMES) if name]
    executable = next((path for path in found if path), None)
    if executable is None:
        pytest.skip("no chromium is there: on Debian, apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        running = Browser(executable, Path(folder))
        yield running
        running.close()


@pytest.fixture(scope="module")
def prometheus():
    """A server that answers queries for requests with 60, and queries for latencies with 0.2 s."""
    from fake_prometheus import FakePrometheus

    with FakePrometheus({"requests": 60.0, "seconds": 0.2}).serving() as server:
        yield server
