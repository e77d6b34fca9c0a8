"""Rules of the architecture: who imports whom, what `--help` loads, what has help."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import click
import pytest
import typer.main

import cli
from tests.conftest import ROOT

STAGES = {"kg", "lattice", "artist"}
MAY_IMPORT = {  # package -> packages it may import
    "data": set(),
    "kg": {"data"},
    "lattice": {"data"},
    "artist": {"data"},
    "experiments": {"data", "pipeline", *STAGES},
    "pipeline": {"data", "lattice", "artist"},
    "commands": {"data", "pipeline", *STAGES},
    "cli": {"commands", "data", "artist", "experiments"},
}
# Each package of a stage may import those after it, and the modules of the stage itself.
FLOORS = {
    "artist": ("evaluation", "training", "generation", "tables", "formats", "models"),
    "kg": ("tools", "training", "sources", "reading"),
    "lattice": ("inspecting", "building", "matching"),
    "data": ("datasets",),
}
SAMPLING = {"--temperature", "--top-k", "--top-p", "--cfg-scale", "--cfg-schedule"}
MAY_PRINT = {"commands", "cli"}
TENSORS_ONLY = (
    "models/gpt.py",
    "models/fusion.py",
    "models/vqgan.py",
    "models/groupnorm_silu.py",
    "models/packed_linear.py",
    "generation/sampling.py",
    "generation/cuda_graph.py",
)


def sources(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_follow_the_arrows(room):
    files = sources(room)
    assert files
    for path in files:
        rooms = {name.split(".")[0] for name in imported(path)} & set(MAY_IMPORT)
        wrong = rooms - MAY_IMPORT[room] - {room}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("stage", FLOORS)
def test_packages_of_a_stage_import_downwards_only(stage):
    floors = FLOORS[stage]
    assert {p.parent.name for p in (ROOT / stage).glob("*/__init__.py")} == set(floors)
    for path in sources(stage):
        place = path.relative_to(ROOT / stage).parts[0]
        # Modules of the stage itself can be imported by all of its packages; it exports from all.
        below = floors[floors.index(place) + 1 :] if place in floors else ()
        below = floors if place == "__init__.py" else below
        rooms = {n.split(".")[1] for n in imported(path) if n.startswith(f"{stage}.")}
        wrong = rooms & set(floors) - set(below) - {place}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_module_imports_itself_by_way_of_others():
    paths = [path for room in MAY_IMPORT for path in sources(room)]
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}
    graph = {name: set(imported(path)) & names.keys() for name, path in names.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def prints(node: ast.AST) -> bool:
    """Whether this is a call of `print`, or of a terminal's or typer's way of printing."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called in {"print", "sys.stdout.write", "sys.stderr.write"} or "echo" in called


def printing_lines(room: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if prints(node)
    ]


def test_every_room_is_packaged_and_type_checked():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    build = ast.parse((ROOT / "hatch_build.py").read_text(encoding="utf-8"))
    [wheel] = [
        ast.literal_eval(node.value)
        for node in build.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    ]
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {
        path.name for path in ROOT.glob("*.py")
    }
    assert set(wheel) == set(settings["mypy"]["files"]) == rooms - {"tests", "hatch_build.py"}
    assert {name.removesuffix(".py") for name in wheel} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_only_the_command_line_prints(room):
    if room in MAY_PRINT:
        assert printing_lines(room), f"{room} prints nothing: take it from the list"
    else:
        assert not printing_lines(room)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT.keys() - MAY_PRINT))
def test_only_the_command_line_imports_typer(room):
    knowing = [path for path in sources(room) if {"typer", "click"} & set(imported(path))]
    assert not knowing


def test_options_are_declared_in_one_way():
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ("commands", "cli")
        for path in sources(room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option"
    ]
    assert [call.split(":")[0] for call in calls] == ["commands/options.py"]


def test_only_two_modules_import_pykeen():
    knowing = {
        path.name
        for path in sources("kg")
        if any(name.split(".")[0] == "pykeen" for name in imported(path))
    }
    assert knowing <= {"transe.py", "evaluate.py"}


@pytest.mark.parametrize("name", TENSORS_ONLY)
def test_files_of_tensors_open_no_file_and_choose_no_device(name):
    path = ROOT / "artist" / name
    text = path.read_text(encoding="utf-8")
    assert not {"os", "pathlib", "io"} & {n.split(".")[0] for n in imported(path)}
    assert ".cuda(" not in text
    assert "open(" not in text


def loaded_by(code: str) -> set[str]:
    """Top-level modules in memory after running code in a fresh interpreter."""
    show = "import sys; print(' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_help_needs_neither_torch_nor_pykeen_nor_transformers():
    code = """
import typer.main, click, cli
def walk(command, parents):
    with click.Context(command, info_name=parents) as context:
        command.get_help(context)
        for name in getattr(command, "commands", {}):
            walk(command.commands[name], parents + " " + name)
walk(typer.main.get_command(cli.app), "cli.py")
"""
    loaded = loaded_by(code)
    assert "typer" in loaded
    assert not loaded & {"torch", "pykeen", "transformers", "pandas", "jieba", "PIL"}


def test_configs_are_importable_without_anything_heavy():
    paths = [path for room in MAY_IMPORT for path in sources(room) if path.name == "config.py"]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    assert len(modules) >= 7
    loaded = loaded_by("import " + ", ".join(modules))
    assert not loaded & {"torch", "pykeen", "typer", "click", "numpy", "pyarrow", "PIL"}


def test_the_shared_room_imports_no_torch():
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sources("data")]
    modules = [name.removesuffix(".__init__") for name in names]
    assert not loaded_by("import " + ", ".join(modules)) & {"torch", "pykeen"}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    waiting: list[tuple[str, click.Command]] = [("", typer.main.get_command(cli.app))]
    while waiting:
        name, command = waiting.pop()
        yield name.strip(), command
        for child, inner in getattr(command, "commands", {}).items():
            waiting.append((f"{name} {child}", inner))


def test_every_command_and_every_option_has_help():
    found = dict(commands())
    for name, command in found.items():
        assert command.help, f"`{name}` has no help"
        for parameter in command.params:
            said = getattr(parameter, "help", None)
            assert said, f"`{name}` {parameter.name} has no help"


def test_the_commands_that_users_rely_on_are_there():
    found = {name for name, _ in commands()}
    assert {
        "kg convert",
        "kg train",
        "kg eval",
        "kg nearest",
        "kg predict",
        "lattice build",
        "lattice show",
        "artist vqgan train",
        "artist encode",
        "artist finetune",
        "artist predict",
        "artist evaluate",
        "artist ablate",
        "demo",
        "proof",
        "proof photos",
        "doctor",
    } <= found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kg train", {"--out", "--epochs", "--dim", "--device", "--overwrite"}),
        (
            "lattice build",
            {"--kg", "--entities", "--tokenizer", "--out", "--overwrite"},
        ),
        (
            "artist finetune",
            {
                "--valid",
                "--kg",
                "--vqgan",
                "--out",
                "--init",
                "--fusion",
                "--epochs",
                "--device",
                "--overwrite",
            },
        ),
        (
            "artist predict",
            {
                "--text",
                "--model",
                "--kg",
                "--out",
                "--num-images",
                "--seed",
                "--device",
                "--overwrite",
                *SAMPLING,
            },
        ),
        ("artist evaluate", {"--model", "--kg", "--out", "--clip", "--inception", *SAMPLING}),
        ("kg shuffle", {"--out", "--seed", "--table", "--overwrite"}),
    ],
)
def test_the_promised_options_are_there(name, options):
    command = dict(commands())[name]
    assert options <= {option for p in command.params for option in p.opts}


def test_an_ablation_takes_every_option_of_a_training_but_those_it_sets():
    options = {
        name: {option for p in command.params for option in p.opts} for name, command in commands()
    }
    missing = options["artist finetune"] - options["artist ablate"]
    assert missing == {"--fusion", "--preview-prompts"}


def test_the_readme_names_no_command_that_does_not_exist():
    known = {name for name, _ in commands()}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        for start in ("python cli.py ", "artist-toolkit "):
            if line.strip().startswith(start):
                words = line.strip().removeprefix(start).split()
                called = [w for w in words[:3] if w.isalpha() and w.islower()]
                assert any(" ".join(called[:n]) in known for n in (1, 2, 3)), line
