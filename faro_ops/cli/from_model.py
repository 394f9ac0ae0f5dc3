"""Options of a command that are the fields of a model (`faro_ops.section`)."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, get_origin

import typer

from faro_ops.section import Model, Section, parsed


def takes(model: type[Model]) -> Callable[[Callable[[Model], None]], Callable[..., None]]:
    """Decorate a command that takes a model, so that its options are the fields of the model."""

    def decorated(command: Callable[[Model], None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(**given: Any) -> None:
            command(parsed(model, given))

        parameters = [_parameter(model, name) for name in model.model_fields]
        with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_options

    return decorated


def option_of(model: type[Section], name: str) -> Any:
    """The typer option of a field: its name without the unit, and its description and limits."""
    field = model.model_fields[name]

    def stated(attribute: str) -> Any:
        """This attribute of an annotation of the field; None if none has it."""
        values = (getattr(one, attribute, None) for one in field.metadata)
        return next((value for value in values if value is not None), None)

    return typer.Option(
        f"--{name.removesuffix('_s').replace('_', '-')}",
        help=field.description,
        show_default=stated("shown") or True,
        min=stated("ge"),
        max=stated("le"),
    )


def _parameter(model: type[Section], name: str) -> Parameter:
    field = model.model_fields[name]
    # The model checks a choice: its error names the accepted values in fewer words.
    kind: Any = str if get_origin(field.annotation) is Literal else field.annotation
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if field.is_required() else field.default,
        annotation=Annotated[kind, option_of(model, name)],
    )
