"""Config fields that carry their own documentation and limits.

    @dataclass(frozen=True, kw_only=True)
    class TrainConfig:
        batch_size: Annotated[int, Option("Captions per step.", min=1)] = 64
        optimizer: Annotated[str, Option("Update rule.", choices=OPTIMIZERS)] = "adamw"
        eps: Annotated[float, Setting("Epsilon of AdamW.", above=0)] = 1e-8

        def __post_init__(self) -> None:
            check_fields(self)

Help text, bounds, choices and default of a field are written here and nowhere else. `check_fields`
enforces them for every caller. `commands.options` generates the options of a command from fields
annotated with `Option`; a `Setting` is available in Python only. Imports neither torch nor typer.
"""

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from data.constants import IMAGE_CHECKS, PRECISIONS
from data.errors import ConfigError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """Documentation and limits of one config field.

    None is not checked. Of a tuple, every item is.

    Attributes:
        help: One sentence or two, shown by `--help`.
        min: Smallest value.
        max: Largest value.
        above: Value that the field must exceed.
        below: Value that the field must stay under.
        choices: All values, if there are few.
        advice: What to try instead, for the error message.
    """

    help: str
    _: KW_ONLY
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Collection[Any] = ()
    advice: str = ""

    def check(self, name: str, value: Any) -> None:
        """Check one value.

        Raises:
            ConfigError: It is not one of the choices (the nearest is offered), or out of bounds.
        """
        if value is None:
            return
        if self.choices and value not in self.choices:
            near = did_you_mean(str(value), map(str, self.choices)) or "."
            known = [str(choice) for choice in self.choices]
            listed = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
            raise ConfigError(f"{name}={value!r} is unknown; use {listed}{near}")
        if not all(map(self._within, value if isinstance(value, tuple | list) else (value,))):
            advice = f"; {self.advice}" if self.advice else ""
            raise ConfigError(f"{name}={value} must {self._must()}{advice}.")

    def interval(self) -> str:
        """Return the bounds for `--help`, such as `x>=1` or `0<=x<1`; empty without bounds."""
        low, high = self._ends()
        more, less = (">=" if self.above is None else ">"), ("<=" if self.below is None else "<")
        if low is not None and high is not None:
            return f"{low}{more.replace('>', '<')}x{less}{high}"
        return f"x{more}{low}" if low is not None else f"x{less}{high}" if high is not None else ""

    def _within(self, value: Any) -> bool:
        return (  # written so that NaN fails
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _must(self) -> str:
        low, high = self._ends()
        if high is None:
            return f"be at least {low}" if self.above is None else f"be above {low}"
        if low is None:
            return f"be at most {high}" if self.below is None else f"be below {high}"
        left, right = "[" if self.above is None else "(", "]" if self.below is None else ")"
        return f"be in {left}{low}, {high}{right}"

    def _ends(self) -> tuple[float | None, float | None]:
        return (
            self.min if self.above is None else self.above,
            self.max if self.below is None else self.below,
        )


@dataclass(frozen=True)
class Option(Setting):
    """A `Setting` that commands offer as an option.

    Attributes:
        flag: The option's name where it is not the field's, such as `--from`. For a bool: both
            names, as `--keep/--drop`, or a single one that sets it, or sets it to False if it
            begins with `--no-`. Default: `--name`, and `--name/--no-name` if the field is True.
        off: Value on the command line that means None.
    """

    _: KW_ONLY
    flag: str = ""
    off: Any = None


Seed = Annotated[int, Option("Random seed; the same seed gives the same result on one machine.")]
Precision = Annotated[
    str,
    Option(
        "Precision of matrix products: auto selects bf16 where the hardware multiplies it fast, "
        "else fp32; fp16 needs a GPU.",
        choices=PRECISIONS,
    ),
]

ImageCheck = Annotated[
    str,
    Option(
        "full decodes each image once; header reads its size only.",
        choices=IMAGE_CHECKS,
        flag="--check-images",
    ),
]


def split(annotation: Any) -> tuple[Any, Setting | None]:
    """Return the type of an annotation, and its `Setting` if it is `Annotated` with one."""
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        return base, next((item for item in metadata if isinstance(item, Setting)), None)
    return annotation, None


def check_value(annotation: Any, name: str, value: Any) -> None:
    """Check a value that is not a field of a config by the `Setting` of an annotation.

    Raises:
        ConfigError: The value is not one of the choices, or out of bounds.
    """
    setting = split(annotation)[1]
    assert setting is not None, f"{annotation} has no setting"
    setting.check(name, value)


@cache
def settings(config: type) -> Mapping[str, tuple[Any, Setting]]:
    """Return type and `Setting` of each annotated field of a dataclass, in order."""
    hints = get_type_hints(config, include_extras=True)
    found = {field.name: split(hints[field.name]) for field in fields(config)}
    return {name: (kind, setting) for name, (kind, setting) in found.items() if setting}


def check_fields(config: Any) -> None:
    """Check all annotated fields of a dataclass instance; for its `__post_init__`.

    Raises:
        ConfigError: A value is not one of the choices, or out of bounds.
    """
    kind: type = type(config)
    for name, (_, setting) in settings(kind).items():
        setting.check(name, getattr(config, name))


def from_dict(config: type[T], values: Mapping[str, Any]) -> T:
    """Return `config(**values)`.

    Raises:
        ConfigError: A key is unknown (the nearest field is offered), or a value cannot be used.
    """
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = did_you_mean(key, known) or "."
            raise ConfigError(f"{config.__name__} has no setting {key!r}{near}")
    return config(**values)
