"""New places of the packages that were once in `faro_lib`, for users' texts that name the old ones.

Such texts are tables of jobs, configurations of Ray Serve and plugins.
"""

import re

MOVED = {
    "faro_lib.arena": "faro_ops.advise.arena",
    "faro_lib.calibrate": "faro_ops.advise.calibrate",
    "faro_lib.cli": "faro_ops.cli",
    "faro_lib.config": "faro_pipeline.settings",
    "faro_lib.http": "faro_ops.http",
    "faro_lib.kube": "faro_ops.operate.kube",
    "faro_lib.pipeline": "faro_pipeline",
    "faro_lib.rayserve": "faro_ops.operate.rayserve",
    "faro_lib.recommend": "faro_ops.advise.recommend",
    "notebooks.arena": "studies.arena",
    "notebooks.edition": "studies.paper",
}
MISSING = re.compile(r"No module named '([\w.]+)'")


def new_path(path: str) -> str | None:
    """The new path of a module, or of a class in it; None if it has not moved.

    >>> new_path("faro_lib.rayserve.models:Emulated")
    'faro_ops.operate.rayserve.models:Emulated'
    >>> new_path("my_models:ResNet")
    """
    for old, new in MOVED.items():
        if re.match(rf"{re.escape(old)}\b", path):
            return new + path.removeprefix(old)
    return None


def moved(import_path: str) -> str | None:
    """The error message for an `import_path` that names an old place; None if it does not.

    >>> moved("faro_lib.http:A")
    "import_path='faro_lib.http:A' has moved; write 'faro_ops.http:A'"
    """
    new = new_path(import_path)
    return f"import_path={import_path!r} has moved; write {new!r}" if new else None


def hint(message: str) -> str:
    """What to add to an error message if it says that a module is missing which has moved.

    >>> hint("mine.py: ModuleNotFoundError: No module named 'faro_lib.arena'")
    "; 'faro_lib.arena' has moved; write 'faro_ops.advise.arena'"
    >>> hint("mine.py: ModuleNotFoundError: No module named 'numpy'")
    ''
    """
    missing = MISSING.search(message)
    new = new_path(missing[1]) if missing else None
    return f"; {missing[1]!r} has moved; write {new!r}" if missing and new else ""
