"""Read the configuration from files and the command line, and write its default file and its reference page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from faro_lib.config.schema import Config, Section
from faro_lib.errors import nearest

DEFAULT_FILE, REFERENCE = Path("config/default.yaml"), Path("docs/configuration.md")
DEFAULT_HEAD = """\
# Every key of the configuration, with its default. Written from faro_lib/config/schema.py by `make config`.
# To override: `make figures CONFIG=config/paper.yaml`, `snakemake --cores all --config trials=5`.
"""
REFERENCE_HEAD = """\
# Every setting

Written from `faro_lib/config/schema.py` by `make config`; a test keeps it up to date.
A setting is given in a file that overrides `config/default.yaml` (`make figures CONFIG=my.yaml`) or on the command line:
`make figures SET="trials=5 capacities=[24,16]"`, `snakemake --cores 2 --config trials=5`.
The tables below write a setting of a stage with a dot; on the command line it is `--config 'scale={curve: [20, 30]}'`
or `SET="'scale={curve: [20, 30]}'"`.
An unknown setting, a value out of range or an unregistered policy is refused in one line before anything is written.
"""


def load(mapping: Mapping[str, Any]) -> Config:
    """The configuration of a mapping as read from YAML; missing keys have their defaults.

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


def _line(mistake: Any) -> str:
    keys = [str(key) for key in mistake["loc"]]
    if mistake["type"] == "extra_forbidden":
        section: Any = Config
        for key in keys[:-1]:
            section = section.model_fields[key].annotation
        return f"config: unknown key {'.'.join(keys)!r}; {nearest(keys[-1], section.model_fields)}"
    message = mistake["msg"].removeprefix("Value error, ")
    if not keys:
        return f"config: {message}"
    message = (message[0].lower() + message[1:]).replace("input should be", "should be")
    return f"config: {'.'.join(keys)}={mistake['input']!r} {message}"


def default_yaml() -> str:
    """The text of config/default.yaml: each key under its description, with its default."""
    return DEFAULT_HEAD + "".join(_yaml_lines(Config(), ""))


def _yaml_lines(section: Section, indent: str) -> Iterator[str]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        blank = "" if indent else "\n"
        yield f"{blank}{indent}# {field.description}\n{indent}{key}:"
        if isinstance(value, Section):
            yield "\n"
            yield from _yaml_lines(value, f"{indent}  ")
        else:
            yield f" {_yaml(value)}\n"


def reference_md() -> str:
    """The text of docs/configuration.md: a table for the settings of the run, and one for each stage."""
    schema = Config.model_json_schema()
    sections = {key: field["$ref"].split("/")[-1] for key, field in schema["properties"].items() if "$ref" in field}
    text = f"{REFERENCE_HEAD}\n## The run\n\n" + _table(schema["properties"], "")
    for key, name in sections.items():
        description = schema["properties"][key]["description"]
        text += f"\n## `{key}`\n\n{description[0].upper()}{description[1:]}.\n\n"
        text += _table(schema["$defs"][name]["properties"], f"{key}.")
    return text


def _table(fields: Mapping[str, Mapping[str, Any]], prefix: str) -> str:
    rows = [
        f"| `{prefix}{key}` | `{_yaml(field['default'])}` | {_kind(field)} | {field['description']} |\n"
        for key, field in fields.items()
        if "$ref" not in field
    ]
    return "| setting | default | type | what it means |\n| --- | --- | --- | --- |\n" + "".join(rows)


def _kind(schema: Mapping[str, Any], plural: str = "") -> str:
    """The type of a JSON schema in words, with its limits.

    >>> _kind({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}), _kind({"enum": ["a", "b"]})
    ('whole number >= 1 or null', '`a` or `b`')
    """
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return f"[{', '.join(_kind(part) for part in schema['prefixItems'])}]"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'], 's')}" + (", not empty" if schema.get("minItems") else "")
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = "".join(f" {sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
    words = {"integer": "whole number", "number": "number", "string": "text", "null": "null"}
    return words[schema["type"]] + plural + limits + (", not empty" if schema.get("minLength") else "")


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
