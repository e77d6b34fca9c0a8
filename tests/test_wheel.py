"""A user's own `data.py` or `kg.py` hides nothing of an installed toolkit, and is not hidden."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

SCRIPT = """
import sys
import data, kg
assert data.MINE and kg.MINE
sys.argv = ["cli.py", "data", "validate", "captions.tsv"]
from cli import main
main()
ours = {"kg", "lattice", "artist", "data", "experiments", "commands"}
loaded = {name for name in sys.modules if name.split(".")[0] in ours}
assert loaded == {"data", "kg"}, loaded
"""


@pytest.fixture(scope="module")
def hook():
    """The build hook; hatchling itself is in the environment of a build only."""
    name = "hatchling.builders.hooks.plugin.interface"
    interface = ModuleType(name)
    interface.BuildHookInterface = object
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, interface)
        spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def run(folder: Path, *words: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(path)},
    )  # fmt: skip


def test_the_packages_of_the_wheel_are_in_one(hook, tmp_path):
    site, user = tmp_path / "site", tmp_path / "user"
    site.mkdir()
    user.mkdir()
    hook.write_package(ROOT, site)
    assert {path.name for path in site.iterdir()} == {"artist_toolkit", "cli.py", "pipeline.py"}
    for path in (site / "artist_toolkit").rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    for name in ("data.py", "kg.py"):
        (user / name).write_text("MINE = True\n")
    (user / "captions.tsv").write_text("1\t一只猫\n", encoding="utf-8")
    (user / "script.py").write_text(SCRIPT)
    done = run(user, "script.py", path=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No problems." in done.stdout
    done = run(user, "-m", "cli", "data", "validate", "captions.tsv", path=site)
    assert "No problems." in done.stdout


def test_names_of_modules_are_rewritten_and_nothing_else(hook):
    source = (
        'from data.runs import Run\n    import_path = "data.runs"\nname = "data.json"\n'
        'from database import x\n"""\nfrom data import y\n"""\nkinds = "kg.training.train"\n'
    )
    assert hook.rewritten(source.replace("    ", ""), ROOT) == (
        'from artist_toolkit.data.runs import Run\nimport_path = "artist_toolkit.data.runs"\n'
        'name = "data.json"\nfrom database import x\n"""\nfrom data import y\n"""\n'
        'kinds = "artist_toolkit.kg.training.train"\n'
    )


def test_from_source_the_message_names_what_hides_what(tmp_path):
    (tmp_path / "data.py").write_text("")
    (tmp_path / "script.py").write_text("from pipeline import ArtistPipeline\n")
    done = run(tmp_path, "script.py", path=ROOT)
    assert f"{tmp_path / 'data.py'} hides the package data of the toolkit in {ROOT}" in done.stderr
