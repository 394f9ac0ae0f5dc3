"""What an error that a user can mend looks like."""

from checkouts import Checkout


def assert_one_line(said: str, told: str) -> None:
    """The text is one short line that contains `told`."""
    assert said.count("\n") == said.endswith("\n"), said
    assert told in said
    assert len(said.rstrip("\n")) <= 300


def assert_refused(checkout: Checkout, told: str, *arguments: str) -> None:
    """Snakemake stops before planning and prints only the error and the source of its settings."""
    done = checkout.snakemake(*arguments)
    assert done.returncode != 0
    own = ("Using workflow specific profile", "Config file config/default.yaml is extended")
    lines = (done.stdout + done.stderr).splitlines()
    said = [line for line in lines if line and not line.startswith(own)]
    assert_one_line("\n".join(said), told)
    assert not checkout.results.exists()
