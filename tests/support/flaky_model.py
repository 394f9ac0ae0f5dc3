"""A model to serve that cannot be loaded while a file exists."""

from pathlib import Path

from faro_ops.operate.rayserve.models import Emulated


class Flaky(Emulated):
    def __init__(self, broken: str, **options):
        if Path(broken).exists():
            raise OSError("the model's file is damaged")
        super().__init__(**options)
