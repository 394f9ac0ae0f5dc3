"""Values that people write, as pydantic models: sections of a file, and the options of a command.

A field declares its name, type, default, limits and description once. An invalid value is an error
of one line, which names the field, the value and what is accepted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from faro_lib.errors import nearest

# What a value of a type of JSON Schema is called in errors.
KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
# Pydantic's errors about unknown keys, and about a value of another type or outside the limits.
UNKNOWN = ("extra_forbidden", "invalid_key")
WRONG_TYPE = {
    *("bool_parsing", "bool_type", "dict_type", "finite_number", "float_parsing", "float_type"),
    *("int_from_float", "int_parsing", "int_type", "list_type", "mapping_type", "string_type"),
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
}


class Section(BaseModel):
    """Values that belong together. The constructor takes valid ones; `parsed` explains others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the help shows as the default of an option. It annotates a field with default None."""

    shown: str


Model = TypeVar("Model", bound=Section)


def parsed(model: type[Model], values: Any, place: str = "", name: str = "") -> Model:
    """The values as a model.

    place : begins the error, such as "job 'a'".
    name : of the section, which begins the names of its keys in errors.

    Raises ValueError with one line about the first error.

    >>> from pydantic import Field
    >>> class Serve(Section):
    ...     gateways: int = Field(1, ge=1)
    >>> parsed(Serve, {"gateways": 0}, "job 'a'", "serve")
    Traceback (most recent call last):
    ValueError: job 'a': serve.gateways=0 must be a whole number >= 1
    """
    try:
        return model.model_validate(dict(values) if isinstance(values, Mapping) else values)
    except ValidationError as error:
        line = next(lines(error, model, name))
    raise ValueError(f"{place}: {line}" if place else line)


def lines(error: ValidationError, model: type[Section], name: str = "") -> Iterator[str]:
    """One line for each error that pydantic has found in the section `name`; "" if it has none.

    Unknown keys come first: a misspelt key is also a missing one.
    """
    for one in sorted(error.errors(include_url=False), key=lambda one: one["type"] not in UNKNOWN):
        yield _line(one, model, name)


def _line(error: Any, model: type[Section], name: str) -> str:
    within = [str(key) for key in error["loc"]]
    keys = ".".join(filter(None, [name, *within]))
    kind, value = error["type"], error["input"]
    if kind == "model_type":
        return f"{keys}={value!r} must be a mapping"
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        return f"{keys}={value!r} {message}" if within else message
    owner, key = _owner(model, within), within[-1]
    if kind in UNKNOWN:
        return f"unknown key {keys!r}; {nearest(key, owner.model_fields)}"
    field = owner.model_fields.get(key)  # None for an item of a list
    if kind == "missing":
        what = field.description if field else ""
        return f"{keys} is missing; {what}" if what else f"{keys} is missing"
    if kind == "literal_error" and field:
        return f"{keys}={value!r} is unknown; {nearest(str(value), _schema(owner, key)['enum'])}"
    if kind in WRONG_TYPE and field:
        return f"{keys}={value!r} must be {_accepted(_schema(owner, key))}"
    message = error["msg"]
    message = (message[0].lower() + message[1:]).replace("input should be", "must be")
    return f"{keys}={value!r} {message}"


def _owner(model: type[Section], keys: list[str]) -> type[Section]:
    """The innermost section on the way that the keys lead from `model`, with indices of lists."""
    section = model
    for key in keys[:-1]:
        if key in section.model_fields:
            annotation = section.model_fields[key].annotation
            within = next(iter(get_args(annotation)), annotation)
            if isinstance(within, type) and issubclass(within, Section):
                section = within
    return section


def _schema(owner: type[Section], key: str) -> dict[str, Any]:
    """The JSON Schema of a key's value, without null."""
    schema = owner.model_json_schema()["properties"][key]
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return kinds[0]


def _accepted(schema: Mapping[str, Any]) -> str:
    """Name the values of a schema, such as "a whole number >= 1 and <= 10"."""
    limits = [f"{sign} {schema[key]}" for key, sign in LIMITS.items() if key in schema]
    return " ".join([KINDS[schema["type"]], " and ".join(limits)]).strip()
