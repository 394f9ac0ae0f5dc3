"""Read the configuration from files and the command line, and write its default file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from faro_lib.config.schema import Config, Section
from faro_lib.errors import nearest


def load(mapping: Mapping[str, Any]) -> Config:
    """The configuration of a mapping as read from YAML; what it leaves out has its default.

    Raises
    ------
    ValueError : one line for each mistake: the key, its value, what is accepted.

    >>> load({"trials": 5}).trials
    5
    >>> load({"trails": 5})
    Traceback (most recent call last):
    ValueError: config: unknown key 'trails'; did you mean 'trials'?
    """
    try:
        return Config.model_validate(dict(mapping))
    except ValidationError as error:
        raise ValueError("\n".join(_line(mistake) for mistake in error.errors(include_url=False))) from None


def _line(mistake) -> str:
    keys = [str(key) for key in mistake["loc"]]
    if mistake["type"] == "extra_forbidden":
        section: Any = Config
        for key in keys[:-1]:
            section = section.model_fields[key].annotation
        return f"config: unknown key {'.'.join(keys)!r}; {nearest(keys[-1], section.model_fields)}"
    said = mistake["msg"].removeprefix("Value error, ")
    if not keys:
        return f"config: {said}"
    said = said[0].lower() + said[1:]
    return f"config: {'.'.join(keys)}={mistake['input']!r} {said.replace('input should be', 'should be')}"


def default_yaml() -> str:
    """The text of config/default.yaml: each key under its description, with its default."""
    head = [
        "# Every key of the configuration, with its default. Written from faro_lib/config/schema.py by `make config`.",
        "# Lay others over it: `make figures CONFIG=config/paper.yaml`, `snakemake --cores all --config trials=5`.",
    ]
    return "\n".join([*head, *_lines(Config(), 0)]) + "\n"


def _lines(section: Section, depth: int) -> list[str]:
    pad = "  " * depth
    lines = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        lines += [] if depth else [""]
        lines += [f"{pad}# {field.description}"]
        if isinstance(value, Section):
            lines += [f"{pad}{key}:", *_lines(value, depth + 1)]
        else:
            lines += [f"{pad}{key}: {_scalar(value)}"]
    return lines


def _scalar(value) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
