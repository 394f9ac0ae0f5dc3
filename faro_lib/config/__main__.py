"""`python -m faro_lib.config` writes config/default.yaml."""

from pathlib import Path

from faro_lib.config.load import default_yaml

if __name__ == "__main__":
    target = Path("config/default.yaml")
    target.write_text(default_yaml())
    print(target)
