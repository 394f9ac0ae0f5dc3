"""A test of the kind cluster that is skipped although there is one has tested nothing."""

from types import ModuleType

import conftest
import pytest


@pytest.mark.parametrize(
    ("kubeconfig", "status"),
    [("/some/where", pytest.ExitCode.TESTS_FAILED), ("", pytest.ExitCode.OK)],
)
def test_a_skipped_test_marked_k8s_fails_where_a_cluster_is_named(
    kubeconfig, status, tmp_path, monkeypatch
):
    text = "import pytest\n@pytest.mark.k8s\ndef test_x():\n    pytest.skip('no kubectl')\n"
    (tmp_path / "test_on_kind.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = k8s\n")
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    hook = ModuleType("hook")
    hook.pytest_runtest_makereport = conftest.pytest_runtest_makereport
    arguments = f"-q -p no:cacheprovider --import-mode importlib --rootdir {tmp_path} {tmp_path}"
    assert pytest.main(arguments.split(), plugins=[hook]) == status
