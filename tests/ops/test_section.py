"""Sections of files and options of commands as models: errors of one line, and the help."""

from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field, model_validator
from typer.testing import CliRunner

from faro_ops.cli.from_model import takes
from faro_ops.run_options import RunOptions
from faro_ops.section import Section, Shown, parsed


class Oven(Section, strict=True, allow_inf_nan=False):
    name: str = Field(description="a name of an oven")
    trays: int = Field(2, ge=1, le=6)
    heat_s: Annotated[float | None, Shown("as long as it takes")] = Field(
        None, gt=0, description="Seconds before it is hot."
    )
    fuel: Literal["gas", "wood"] = "gas"
    fan: bool = False

    @model_validator(mode="after")
    def _can_have_a_fan(self):
        if self.fan and self.fuel == "wood":
            raise ValueError("a wood oven has no fan")
        return self


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "oven.name is missing; a name of an oven"),
        ({"name": 3}, "oven.name=3 must be text"),
        ({"name": None}, "oven.name=None must be text"),
        ({"nam": "a"}, "unknown key 'oven.nam'; did you mean 'name'?"),
        ({1: "a"}, "unknown key 'oven.1'; accepted: name, trays, heat_s, fuel, fan"),
        ({"name": "a", "trays": 7}, "oven.trays=7 must be a whole number >= 1 and <= 6"),
        ({"name": "a", "trays": True}, "oven.trays=True must be a whole number >= 1 and <= 6"),
        ({"name": "a", "trays": 1.5}, "oven.trays=1.5 must be a whole number >= 1 and <= 6"),
        ({"name": "a", "heat_s": "1"}, "oven.heat_s='1' must be a number > 0"),
        ({"name": "a", "heat_s": float("inf")}, "oven.heat_s=inf must be a number > 0"),
        ({"name": "a", "fuel": "coal"}, "oven.fuel='coal' is unknown; accepted: gas, wood"),
        ({"name": "a", "fuel": "wodo"}, "oven.fuel='wodo' is unknown; did you mean 'wood'?"),
        ({"name": "a", "fan": True, "fuel": "wood"}, "a wood oven has no fan"),
        ("hot", "oven='hot' must be a mapping"),
    ],
)
def test_an_invalid_value_is_one_line_with_the_field_the_value_and_what_is_accepted(values, line):
    with pytest.raises(ValueError) as error:
        parsed(Oven, values, "kitchen", "oven")
    assert str(error.value) == f"kitchen: {line}"


class TestACommandThatTakesAModel:
    @pytest.fixture
    def bake(self):
        given = []

        @takes(Oven)
        def bake(oven: Oven) -> None:
            """Bake."""
            given.append(oven)

        app = typer.Typer()
        app.command()(bake)

        def run(*words):
            return CliRunner().invoke(app, words), given

        return run

    def test_it_has_an_option_per_field_named_without_its_unit(self, bake):
        _, (oven,) = bake("--name", "a", "--heat", "3.5", "--fan")
        assert oven == Oven(name="a", heat_s=3.5, fan=True)

    def test_its_help_has_the_descriptions_limits_and_defaults_of_the_fields(self, bake):
        text = " ".join(bake("--help")[0].output.replace("│", " ").split())
        for part in ("Seconds before it is hot.", "as long as it takes", "1<=x<=6", "Bake."):
            assert part in text

    def test_what_only_the_model_checks_is_an_error_of_the_command(self, bake):
        result, given = bake("--name", "a", "--fuel", "coal")
        assert str(result.exception) == "fuel='coal' is unknown; accepted: gas, wood"
        assert given == []


def test_every_option_of_faro_run_says_what_it_is():
    assert all(field.description for field in RunOptions.model_fields.values())
