"""How many jobs and counts a table, a log or an answer may have, so that they fit into memory."""

MAX_JOBS = 10_000
MAX_COUNTS = 400_000_000  # of all jobs, in all minutes of a table or all windows of a log
# If there are more than FEW_JOBS names, with fewer rows each, they are ids of requests.
FEW_JOBS, MIN_ROWS = 100, 5
IDS = "split the file; or is the column job the id of a request?"


def check_size(where: str, jobs: int, counts_per_job: int, advice: str) -> None:
    """ValueError if there are too many jobs, or too many counts of them, to keep in memory."""
    if jobs > MAX_JOBS or jobs * counts_per_job > MAX_COUNTS:
        raise ValueError(
            f"{where}: {jobs} jobs with {counts_per_job} counts each are too many; at most "
            f"{MAX_JOBS} jobs and {MAX_COUNTS} counts are accepted; {advice}"
        )


def check_names(where: str, jobs: int, rows: int) -> None:
    """ValueError if the names of the jobs have so few rows that they are ids of requests."""
    if jobs > FEW_JOBS and rows < MIN_ROWS * jobs:
        raise ValueError(
            f"{where}: {jobs} different names in the column job, but only {rows} rows; is it the "
            "id of a request?"
        )
