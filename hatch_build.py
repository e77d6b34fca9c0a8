"""Put all packages into one, `artist_toolkit`, in the wheel.

From source the packages are `kg`, `lattice`, `artist`, `data` ... at the top level. Installed like
that, a user's own `data.py` or `pipeline.py` next to a script would hide them. The wheel contains
`artist_toolkit.kg` and so on, with imports rewritten; `cli` and `pipeline` remain as modules that
import from it, so that `from pipeline import ArtistPipeline` works in both.
"""

import io
import re
import shutil
import tempfile
import tokenize
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "artist_toolkit"
ROOMS = ("kg", "lattice", "artist", "data", "experiments", "commands", "cli.py", "pipeline.py")
_NAMES = "|".join(room.removesuffix(".py") for room in ROOMS)
_IMPORT = re.compile(rf"^(\s*)(from|import) ({_NAMES})(?=[. ]|$)", re.MULTILINE)
_MODULE = re.compile(rf"[\"'](({_NAMES})(\.\w+)+)[\"']")
_FORWARD = '''"""{name} of the installed toolkit; the module is `{package}.{name}`."""

from {package}.{name} import *  # noqa: F403
from {package}.{name} import {public}  # noqa: F401
'''


class OnePackage(BuildHookInterface):  # type: ignore[misc]
    """Adds the rewritten files to a wheel; an editable installation uses the source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See `BuildHookInterface`."""
        if version == "editable":
            return
        self._folder = Path(tempfile.mkdtemp())
        write_package(Path(self.root), self._folder)
        build_data["force_include"] |= {
            str(path): path.name for path in sorted(self._folder.iterdir())
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See `BuildHookInterface`."""
        if version != "editable":
            shutil.rmtree(self._folder)


def write_package(root: Path, out: Path) -> None:
    """Write the package and the modules that forward to it into the folder `out`."""
    package = out / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text(
        '"""ARTIST toolkit; see `artist_toolkit.pipeline`."""\n', encoding="utf-8"
    )
    for room in ROOMS:
        source = root / room
        paths = [source] if source.is_file() else sorted(source.rglob("*"))
        for path in paths:
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            copy = package / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                text = rewritten(path.read_text(encoding="utf-8"), root)
                copy.write_text(text, encoding="utf-8")
            else:
                shutil.copyfile(path, copy)
    for name, public in (("cli", "app, main"), ("pipeline", "ArtistPipeline")):
        forward = _FORWARD.format(name=name, package=PACKAGE, public=public)
        if name == "cli":
            forward += '\nif __name__ == "__main__":\n    main()\n'
        (out / f"{name}.py").write_text(forward, encoding="utf-8")


def rewritten(source: str, root: Path) -> str:
    """Return a module whose imports, and names of modules in strings, are below the package."""
    texts = {  # lines of strings that go over several lines, such as docstrings
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.STRING and token.start[0] != token.end[0]
        for line in range(token.start[0], token.end[0] + 1)
    }

    def module(found: re.Match[str]) -> str:
        path = root / found[1].replace(".", "/")
        exists = path.with_suffix(".py").is_file() or path.is_dir()
        return f"{found[0][0]}{PACKAGE}.{found[1]}{found[0][-1]}" if exists else found[0]

    lines = []
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        if number not in texts:
            line = _IMPORT.sub(rf"\1\2 {PACKAGE}.\3", _MODULE.sub(module, line))
        lines.append(line)
    return "".join(lines)
