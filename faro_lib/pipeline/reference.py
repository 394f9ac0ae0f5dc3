"""docs/configuration.md, written from the schema of the configuration: `make config`."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from faro_lib.config import Config, Section

PAGE = Path("docs/configuration.md")
HEAD = """# Every setting

Written from `faro_lib/config/schema.py` by `make config`; a test keeps it in step. A setting is given in a file laid over
`config/default.yaml` (`make figures CONFIG=my.yaml`) or on the command line (`make figures SET="trials=5 capacities=[24,16]"`,
`snakemake --cores 2 --config trials=5`; one of a stage, a dot in the tables below, as `--config 'scale={curve: [20, 30]}'`
or `SET="'scale={curve: [20, 30]}'"`). An unknown setting, a value out of range, a policy that nobody registered: each is
refused in one line before anything is written.
"""


def configuration_md() -> str:
    """The page: a table for the settings of the run, one for each stage."""
    fields = Config.model_fields
    parts = [name for name, field in fields.items() if _section(field.annotation)]
    text = HEAD + "\n## The run\n\n" + _table(Config, "", [name for name in fields if name not in parts])
    for name in parts:
        section = _section(fields[name].annotation)
        assert section is not None
        text += f"\n## `{name}`\n\n{fields[name].description[:1].upper()}{fields[name].description[1:]}.\n\n"  # type: ignore[index]
        text += _table(section, f"{name}.", list(section.model_fields))
    return text


def _table(section: type[Section], prefix: str, names: list[str]) -> str:
    lines = ["| setting | default | type | what it means |", "| --- | --- | --- | --- |"]
    for name in names:
        field = section.model_fields[name]
        limits = "".join(f", {limit}" for limit in filter(None, map(_limit, field.metadata)))
        kind = _kind(field.annotation) + limits
        lines.append(f"| `{prefix}{name}` | `{_plain(field.default)}` | {kind} | {field.description} |")
    return "\n".join(lines) + "\n"


def _section(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _kind(annotation: Any) -> str:
    """A type as people say it.

    >>> _kind(list[int] | None), _kind(typing.Literal["a", "b"]), _kind(list[tuple[int, int]])
    ('list of whole numbers or null', '`a` or `b`', 'list of [whole number, whole number]')
    """
    words = {int: "whole number", float: "number", str: "text", type(None): "null"}
    arguments = typing.get_args(annotation)
    if annotation in words:
        return words[annotation]
    if isinstance(annotation, types.UnionType):
        return " or ".join(_kind(part) for part in arguments)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if typing.get_origin(annotation) is list:
        return f"list of {_kind(arguments[0])}" + ("s" if arguments[0] in (int, float, str) else "")
    if typing.get_origin(annotation) is tuple:
        return f"[{', '.join(_kind(part) for part in arguments)}]"
    return getattr(annotation, "__name__", str(annotation))


def _limit(limit: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    said = [f"{sign} {getattr(limit, key):g}" for key, sign in signs.items() if hasattr(limit, key)]
    if getattr(limit, "min_length", 0):
        said.append("not empty")
    return " ".join(said)


def _plain(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    PAGE.write_text(configuration_md())
    print(PAGE)
