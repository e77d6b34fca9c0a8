"""Options of commands, generated from annotations; and the options that several commands share.

    @app.command("train")
    @with_options
    def kg_train(*, triples: Triples, out: Out, config: KGConfig, device: Device = "auto") -> None:

A parameter annotated with an `Option` becomes that option. A parameter annotated with a config
dataclass becomes one option per `Option` field; the command receives the config. Everything else is
typer's. Bounds and choices are checked by `data.options`, not by typer, so that a command and a
Python call report the same error.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer

from artist.training.config import PRESETS
from data.constants import DEVICES
from data.encoding import argument_text, has_surrogates, readable
from data.errors import ConfigError
from data.options import Option, from_dict, settings, split

# --- options that several commands share ---------------------------------------------------------
Out = Annotated[Path, Option("Where to write the result.")]
Overwrite = Annotated[bool, Option("Replace the output of another run.")]
Preset = Annotated[
    str, Option("Recipe; explicit options override its values.", choices=tuple(PRESETS))
]
Init = Annotated[Path | None, Option("Initialize with the weights of this model.")]
Device = Annotated[
    str, Option("Where to compute; auto selects a GPU if there is one.", choices=DEVICES)
]
DryRun = Annotated[bool, Option("Take two steps and estimate the memory and time of the run.")]
KG = Annotated[Path, Option("KG folder, from `kg train` or EasyNLP's pair of files.")]
VQGANPath = Annotated[
    Path,
    Option(
        "VQGAN folder, from `artist vqgan train`, or a taming-transformers checkpoint.",
        flag="--vqgan",
    ),
]
Model = Annotated[Path, Option("Model folder.")]
Valid = Annotated[Path, Option("Lattice table of the validation captions.")]
Mentions = Annotated[
    Path | None,
    Option("Additional names, `mention<TAB>entity`; one mention can name several entities."),
]
Table = Annotated[Path, typer.Argument(help="Lattice table, from `lattice build`.")]
AnyTable = Annotated[
    Path, typer.Argument(help="Lattice table, or a folder of shards.", show_default=False)
]


class Only:
    """The fields of a config that a command offers, as `Annotated[TrainConfig, Only("size")]`."""

    def __init__(self, *names: str, **defaults: Any) -> None:
        """Name the fields; those with a default of their own in this command as keywords."""
        self.names = {*names, *defaults}
        self.defaults = defaults


class Given:
    """Requests the given options as a dict: `Annotated[dict[str, Any], Given(TrainConfig)]`.

    For a command that starts from a preset, which explicit options override.
    """

    def __init__(self, config: type, *, without: tuple[str, ...] = (), **defaults: Any) -> None:
        """Take the options from the fields of `config`.

        Args:
            config: The config dataclass.
            without: Fields that the command sets itself.
            **defaults: Fields with a default of their own in this command, which the dict holds.
        """
        self.config, self.defaults = config, defaults
        self.names = settings(config).keys() - set(without)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with options in place of its parameters, as described above.

    An option that is not given is not passed on, so its default is that of the command's signature
    or of the config. Commands take keyword-only parameters, so that a config can follow a default.

    Raises:
        ConfigError: When the command runs: a value is not one of the choices, or out of bounds.
    """
    blocks: dict[str, _Block] = {}
    loose: dict[str, Option] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, option = split(parameter.annotation)
        if block := _Block.of(parameter.annotation):
            blocks[name] = block
            shown += block.parameters()
        elif isinstance(option, Option):
            loose[name] = option
            shown.append(_parameter(name, kind, option, parameter.default))
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        given = {name: _text(name, v) for name, v in values.items() if v is not None}
        configs = {name: block.build(given) for name, block in blocks.items()}
        for name in loose.keys() & given.keys():
            given[name] = _value(loose[name], given[name])
            loose[name].check(name, given[name])
        command(**given, **configs)

    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _text(name: str, value: Any) -> Any:
    """Return a value of the command line; texts, not paths, are decoded as UTF-8.

    Raises:
        ConfigError: A text is not valid Unicode.
    """
    if isinstance(value, list):
        return [_text(name, one) for one in value]
    if isinstance(value, str) and has_surrogates(value := argument_text(value)):
        raise ConfigError(
            f"{name}: {readable(value)!r} is not valid Unicode. Use a shell whose locale is UTF-8, "
            "or PYTHONUTF8=1."
        )
    return value


class _Block:
    """The options that replace a parameter of a config dataclass."""

    def __init__(self, config: type, only: Only | Given | None) -> None:
        self.config, self.as_dict = config, isinstance(only, Given)
        self.defaults = only.defaults if only else {}
        self.options = {
            name: (kind, option)
            for name, (kind, option) in settings(config).items()
            if isinstance(option, Option) and (only is None or name in only.names)
        }
        assert not isinstance(only, Only) or only.names == self.options.keys(), only.names

    @classmethod
    def of(cls, annotation: Any) -> "_Block | None":
        metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
        for item in metadata:
            if isinstance(item, Given):
                return cls(item.config, item)
        if not is_dataclass(metadata[0]):
            return None
        only = next((item for item in metadata if isinstance(item, Only)), None)
        return cls(metadata[0], only)  # type: ignore[arg-type]

    def parameters(self) -> list[inspect.Parameter]:
        defaults = {field.name: field.default for field in fields(self.config)} | self.defaults
        return [
            _parameter(name, kind, option, defaults[name])
            for name, (kind, option) in self.options.items()
        ]

    def build(self, given: dict[str, Any]) -> Any:
        """Take the block's options out of `given`; return the config, or the dict itself."""
        found = {
            name: _value(option, given.pop(name))
            for name, (_, option) in self.options.items()
            if name in given
        }
        values = {**self.defaults, **found}
        return values if self.as_dict else from_dict(self.config, values)


def _value(option: Option, value: Any) -> Any:
    """Return the value of a field or parameter from that of its option."""
    if value is True and option.flag.startswith("--no-"):
        return False
    return None if option.off is not None and value == option.off else value


def _parameter(name: str, kind: Any, option: Option, default: Any) -> inspect.Parameter:
    """Return the parameter that typer reads; its default is None, which means not given."""
    required = default in (inspect.Parameter.empty, MISSING)
    flag = option.flag or f"--{name.replace('_', '-')}"
    if default is True and not option.flag:
        flag += f"/--no-{flag.removeprefix('--')}"
    info = typer.Option(
        flag,
        help=option.help + ("" if required else _limits(flag, option, default)),
        metavar=f"<{'|'.join(map(str, option.choices))}>" if option.choices else None,
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind if required or NoneType in get_args(kind) else kind | None, info],
    )


def _limits(flag: str, option: Option, default: Any) -> str:
    """Return default and bounds in brackets, in click's form."""
    if isinstance(default, bool):
        names = flag.split("/")
        default = names[not default].removeprefix("--") if all(names) and len(names) == 2 else None
    elif default is None:
        default = option.off
    parts = [f"default: {default}"] if default is not None else []
    parts += [option.interval()] if option.interval() else []
    parts += [f"{option.off}: off"] if option.off is not None else []
    return f"  [{'; '.join(parts)}]" if parts else ""
