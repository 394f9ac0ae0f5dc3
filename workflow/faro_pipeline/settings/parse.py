"""Check a configuration, and generate the texts of config/default.yaml and docs/configuration.md from the schema."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from faro_lib.errors import nearest
from faro_pipeline.settings.schema import Config, Section

DEFAULT_FILE, REFERENCE = Path("config/default.yaml"), Path("docs/configuration.md")
DEFAULT_HEAD = """\
# Every setting of the pipeline, with its default. `make config` writes this file from workflow/faro_pipeline/settings/schema.py.
# Override settings in a file (`make figures CONFIG=config/paper.yaml`) or one by one (`make figures SET=trials=5`).
"""
REFERENCE_HEAD = """\
# Settings

`make config` writes this page from `workflow/faro_pipeline/settings/schema.py`.

Override settings in a file, `make figures CONFIG=my.yaml`, or on the command line:
`make figures SET="trials=5 capacities=[24,16]"`. A setting with a dot belongs to a section:
`make figures SET="'scale={curve: [20, 30]}'"`. Without make: `snakemake --cores all --config trials=5`.
A wrong name, type or value is an error of one line, before anything is written.
"""


def load(mapping: Mapping[str, Any]) -> Config:
    """Return the configuration with the settings in `mapping`, and the defaults for all other settings.

    Raises ValueError if a key or a value is invalid. The message has one line per error.

    >>> load({"trials": 5}).trials
    5
    >>> load({"trails": 5})
    Traceback (most recent call last):
    ValueError: config: unknown key 'trails'; did you mean 'trials'?
    """
    try:
        return Config.model_validate(dict(mapping))
    except ValidationError as error:
        raise ValueError("\n".join(map(_line, error.errors(include_url=False)))) from None


def _line(error: Any) -> str:
    keys = [str(key) for key in error["loc"]]
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for key in keys[:-1]:
            if not key.isdigit():  # not a list index
                annotation = section.model_fields[key].annotation
                section = next(iter(get_args(annotation)), annotation)
        return f"config: unknown key {'.'.join(keys)!r}; {nearest(keys[-1], section.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    if not keys:
        return f"config: {message}"
    message = (message[0].lower() + message[1:]).replace("input should be", "should be")
    return f"config: {'.'.join(keys)}={error['input']!r} {message}"


def default_yaml() -> str:
    """The text of config/default.yaml: every setting with its description and default."""
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
    """The text of docs/configuration.md: a list of the general settings, and a list per section."""
    config = Config()
    text = f"{REFERENCE_HEAD}\n## General\n\n" + _list(config, "")
    for key, field in Config.model_fields.items():
        if isinstance(section := getattr(config, key), Section):
            description = str(field.description)
            text += f"\n## `{key}`\n\n{description[0].upper()}{description[1:]}.\n\n" + _list(
                section, f"{key}."
            )
    return text


def _list(section: Section, prefix: str) -> str:
    items = [
        f"- `{prefix}{key}` (default `{_yaml(getattr(section, key))}`): {field.description}"
        for key, field in type(section).model_fields.items()
        if not isinstance(getattr(section, key), Section)
    ]
    wrap = TextWrapper(
        width=100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "".join(f"{wrap.fill(item)}\n" for item in items)


def _yaml(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
