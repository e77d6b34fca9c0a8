"""Options of commands, generated from config dataclasses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer.testing

from commands.options import Device, Given, Only, Out, with_options
from data.errors import ConfigError
from data.options import Option, Seed, Setting, check_fields

BOTH = ("small", "base")


@dataclass(frozen=True, kw_only=True)
class Config:
    size: Annotated[str, Option("Model size.", choices=BOTH)] = "base"
    top_k: Annotated[int | None, Option("Most likely codes.", min=1, off=0)] = 100
    top_p: Annotated[float | None, Option("Probability.", above=0, max=1, off=1.0)] = None
    steps: Annotated[int | None, Option("Steps; by default all.", min=1)] = None
    compile: Annotated[bool, Option("Compile.")] = False
    aliases: Annotated[bool, Option("Match aliases.")] = True
    flip: Annotated[bool, Option("Do not mirror.", flag="--no-flip")] = True
    learn: Annotated[bool, Option("Learn or hold.", flag="--learn/--hold")] = True
    start: Annotated[Path | None, Option("Older folder.", flag="--from")] = None
    betas: Annotated[tuple[float, float], Option("Betas.", min=0, below=1)] = (0.9, 0.95)
    eps: Annotated[float, Setting("Epsilon.")] = 1e-8
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)


def runner(command: Callable[..., None]) -> Callable[..., typer.testing.Result]:
    """Run a function as the only command of an app."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(with_options(command))

    def run(*words: object) -> typer.testing.Result:
        return typer.testing.CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "100"})

    return run


@pytest.fixture
def built() -> Callable[..., Config]:
    """Return the config that a command receives for some words."""
    seen: list[Config] = []

    def command(*, config: Config) -> None:
        seen.append(config)

    run = runner(command)

    def build(*words: object) -> Config:
        result = run(*words)
        assert result.exit_code == 0, result.output
        return seen.pop()

    return build


def test_without_options_the_config_has_its_defaults(built):
    assert built() == Config()


def test_every_kind_of_field_is_an_option(built):
    words = ["--size", "small", "--top-k", 3, "--top-p", 0.5, "--steps", 7, "--compile",
             "--no-aliases", "--no-flip", "--hold", "--from", "old", "--betas", 0.1, 0.2,
             "--seed", 4]  # fmt: skip
    assert built(*words) == Config(
        size="small",
        top_k=3,
        top_p=0.5,
        steps=7,
        compile=True,
        aliases=False,
        flip=False,
        learn=False,
        start=Path("old"),
        betas=(0.1, 0.2),
        seed=4,
    )


def test_the_value_off_means_none_and_an_explicit_default_is_kept(built):
    config = built("--top-k", 0, "--top-p", 1, "--learn", "--aliases")
    assert config == Config(top_k=None, top_p=None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "smal"], 'use small or base; did you mean "small"?'),
        (["--steps", 0], "steps=0 must be at least 1."),
        (["--device", "xla"], "device='xla' is unknown; use one of auto, cpu, cuda."),
        (["--count", 0], "count=0 must be at least 1."),
    ],
)
def test_a_wrong_value_is_a_config_error_of_a_field_and_of_a_plain_option(words, said):
    def command(
        *,
        config: Config,
        count: Annotated[int, Option("Count.", min=1)] = 1,
        device: Device = "auto",
    ) -> None:
        raise AssertionError

    error = runner(command)(*words).exception
    assert isinstance(error, ConfigError)
    assert said in str(error)


def test_help_shows_type_choices_default_bounds_and_off():
    def command(*, config: Config, out: Out, text: Annotated[list[str], Option("Text.")]) -> None:
        """Do it."""

    lines = runner(command)("--help").output
    shown = " ".join(lines.split())
    for part in (
        "--size <small|base> Model size. [default: base]",
        "--top-k <int> Most likely codes. [default: 100; x>=1; 0: off]",
        "--top-p <float> Probability. [default: 1.0; 0<x<=1; 1.0: off]",
        "--steps <int> Steps; by default all. [x>=1]",
        "--compile Compile. --aliases / --no-aliases Match aliases. [default: aliases]",
        "--no-flip Do not mirror. --learn / --hold Learn or hold. [default: learn]",
        "--from <path> Older folder. --betas",
        "--out <path> Where to write the result. [required]",
    ):
        assert part in shown
    assert "--eps" not in shown


def test_a_command_can_offer_some_fields_with_defaults_of_its_own():
    seen: list[Config] = []

    def command(*, config: Annotated[Config, Only("steps", size="small")]) -> None:
        seen.append(config)

    run = runner(command)
    assert run("--steps", 2).exit_code == 0
    assert seen == [Config(size="small", steps=2)]
    assert run("--top-k", 2).exit_code == 2
    assert "[default: small]" in run("--help").output


def test_fields_that_do_not_exist_cannot_be_offered():
    def command(*, config: Annotated[Config, Only("stps")]) -> None: ...

    with pytest.raises(AssertionError):
        with_options(command)


def test_explicit_options_override_a_preset_and_defaults_do_not():
    recipe = {"size": "small", "top_k": 5, "flip": False}
    seen: list[Config] = []

    def command(*, changes: Annotated[dict[str, Any], Given(Config)]) -> None:
        seen.append(Config(**{**recipe, **changes}))

    run = runner(command)
    assert run("--size", "base", "--top-k", 0).exit_code == 0
    assert run().exit_code == 0
    assert seen == [
        Config(size="base", top_k=None, flip=False),
        Config(size="small", top_k=5, flip=False),
    ]


def test_a_dict_can_leave_out_fields_and_have_defaults_of_its_own():
    seen: list[dict[str, Any]] = []

    def command(
        *, changes: Annotated[dict[str, Any], Given(Config, without=("seed",), size="small")]
    ) -> None:
        seen.append(changes)

    run = runner(command)
    assert run("--top-k", 3).exit_code == run("--size", "base").exit_code == 0
    assert seen == [{"size": "small", "top_k": 3}, {"size": "base"}]
    assert run("--seed", 3).exit_code == 2
    assert "default: small" in run("--help").output
