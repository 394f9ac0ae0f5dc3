"""Check a configuration, and write the files that are made of the settings.

These are config/default.yaml, its JSON Schema and docs/configuration.md.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

import yaml
from pydantic import ValidationError

from faro_ops.section import Section, lines
from faro_pipeline.settings.schema import Config

DEFAULT_FILE = Path("config/default.yaml")
REFERENCE = Path("docs/configuration.md")
SCHEMA_FILE = Path("workflow/schemas/config.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
WIDTH = 100
DEFAULT_HEAD = """\
# Every setting of the pipeline, with its default. `make config` writes this file from
# workflow/faro_pipeline/settings/schema.py and workflow/faro_pipeline/stages.
# Override settings in a file (`make figures CONFIG=config/paper.yaml`) or one by one
# (`make figures SET=trials=5`).
"""
REFERENCE_HEAD = """\
# Settings

`make config` writes this page from `workflow/faro_pipeline/settings/schema.py` and
`workflow/faro_pipeline/stages`.

Override settings in a file, `make figures CONFIG=my.yaml`, or on the command line:
`make figures SET="trials=5 capacities=[24,16]"`. A setting with a dot belongs to a section:
`make figures SET="'scale={curve: [20, 30]}'"`. Without make:
`snakemake --cores all --config trials=5`.
A wrong name, type or value is an error of one line, before anything is written.

`workflow/schemas/config.schema.json` is the JSON Schema of these settings. With this first line in
a file of settings, an editor with a YAML language server checks and completes them:

    # yaml-language-server: $schema=../workflow/schemas/config.schema.json
"""


def load(mapping: Mapping[str, Any]) -> Config:
    """The configuration with the settings in `mapping`, and the defaults for all others.

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
        problems = [f"config: {line}" for line in lines(error, Config)]
    raise ValueError("\n".join(problems))


def default_yaml() -> str:
    """The text of config/default.yaml: every setting with its description and default."""
    return DEFAULT_HEAD + "".join(_yaml_lines(Config(), ""))


def _yaml_lines(section: Section, indent: str) -> Iterator[str]:
    start = f"{indent}# "
    wrap = TextWrapper(width=WIDTH, initial_indent=start, subsequent_indent=start)
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if not indent:
            yield "\n"
        yield f"{wrap.fill(str(field.description))}\n"
        if isinstance(value, Section):
            yield f"{indent}{key}:\n"
            yield from _yaml_lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {_yaml(value)}\n"


def schema_json() -> str:
    """The text of the JSON Schema of a configuration.

    It has the types, ranges and defaults, but not what is checked with a function, such as the
    names of policies or whether each job has a replica.
    """
    schema = {"$schema": DIALECT, **Config.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def reference_md() -> str:
    """The text of docs/configuration.md: a list of the general settings, and one per section."""
    config = Config()
    text = f"{REFERENCE_HEAD}\n## General\n\n" + _list(config, "")
    for key, field in Config.model_fields.items():
        section = getattr(config, key)
        if not isinstance(section, Section):
            continue
        description = str(field.description)
        text += f"\n## `{key}`\n\n{description[0].upper()}{description[1:]}.\n\n"
        text += _list(section, f"{key}.")
    return text


def _list(section: Section, prefix: str) -> str:
    wrap = TextWrapper(
        width=WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    text = ""
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if not isinstance(value, Section):
            item = f"- `{prefix}{key}` (default `{_yaml(value)}`): {field.description}"
            text += f"{wrap.fill(item)}\n"
    return text


def _yaml(value: Any) -> str:
    """The value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
