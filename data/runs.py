"""Outputs that are whole or absent: a temporary name, a manifest, a rename.

Every stage writes through a `Run`. While it works, the output lives under `<out>.partial`; when it
is finished, its files are hashed, the manifest is written and everything gets its final name at
once. So a path without `.partial` is complete, and a killed run leaves only the partial one, which
the next call with the same settings resumes.

The manifest is `manifest.json` inside a folder, and `<file>.manifest.json` beside a single file.
This module knows nothing of what the files hold.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from data.errors import ArtefactError, InputError

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_DISK = {  # what no program can mend
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not be so large there",
    errno.EROFS: "the disk is read-only",
}
_RUN = "run.json"  # the settings of an unfinished run
_VERSIONED = (
    "artist-toolkit",
    "torch",
    "pykeen",
    "transformers",
    "pyarrow",
    "numpy",
    "pillow",
    "pyahocorasick",
    "jieba",
    "rjieba",
    "safetensors",
)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artefact says of itself.

    Attributes:
        kind: What it is: `kg`, `lattice`, `vqgan`, `model`, `predictions`.
        settings: Every option that shaped it, defaults included.
        inputs: Name of each input -> its fingerprint.
        counts: Rows in, kept, rejected and why; and whatever else was counted or measured.
        files: Path inside the artefact -> sha256.
        versions: Python, this toolkit and the libraries it used.
        created: UTC, ISO 8601.
    """

    kind: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any]
    files: dict[str, str]
    versions: dict[str, str]
    created: str

    @property
    def fingerprint(self) -> str:
        """A name for the content: equal exactly where kind and all files are equal."""
        content = json.dumps([self.kind, self.files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """What a stage did; the base of the reports of all stages that write through a `Run`.

    Attributes:
        out: The output.
        already_finished: The output was finished and unchanged, and nothing was done.
    """

    out: Path
    already_finished: bool = field(default=False, compare=False)

    def outcome(self, otherwise: str = "is written") -> str:
        """Return the output's path and what became of it."""
        done = "is finished and unchanged" if self.already_finished else otherwise
        return f"{self.out} {done}"


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """A name for the content of an artefact, a plain file or a plain folder of files.

    Raises:
        InputError: There is nothing at `path`.
    """
    if manifest_path(path).exists():
        return read_manifest(path).fingerprint
    if path.is_file():
        return sha256(path)
    if path.is_dir():
        files = {str(p.relative_to(path)): sha256(p) for p in _files(path)}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    raise InputError(f"{path} does not exist.")


def manifest_path(out: Path) -> Path:
    """Where the manifest of the folder or file `out` lies."""
    return out / MANIFEST if out.is_dir() else out.with_name(out.name + ".manifest.json")


def read_manifest(out: Path) -> Manifest:
    """The manifest of an artefact.

    Raises:
        ArtefactError: It has none, or one that cannot be read.
    """
    path = manifest_path(out)
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ArtefactError(
            f"{out} has no manifest ({path} is missing), so it is not a finished "
            "output of this toolkit."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(
            f"{path} cannot be read as a manifest: {error}. Make the output again with --overwrite."
        ) from None


def verify(out: Path) -> Manifest:
    """The manifest of an artefact whose files all still are what they were.

    Raises:
        ArtefactError: A file is missing, or its bytes changed since it was written.
    """
    manifest = read_manifest(out)
    for name, digest in manifest.files.items():
        path = out / name if out.is_dir() else out.with_name(name)
        if not path.exists():
            raise ArtefactError(f"{path} is missing; {manifest_path(out)} lists it.")
        if sha256(path) != digest:
            raise ArtefactError(
                f"{path} changed since it was written: its sha256 is not the one in "
                f"{manifest_path(out)}. Restore it, or make it again with "
                "--overwrite."
            )
    return manifest


def versions() -> dict[str, str]:
    """Python's version and those of the libraries that shape our outputs."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """An open file that gets its name `path` only when the block ends without an error."""
    partial = path.with_name(path.name + ".partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with partial.open(mode, encoding=encoding, newline=None if "b" in mode else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    with atomic(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=False) + "\n")


def save_text(path: Path, text: str) -> None:
    """Write a small file that somebody asked for, such as a drawing; its folder is made.

    Raises:
        ArtefactError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write(text)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be written: {error.strerror or error}.") from None


class Run:
    """One output under construction.

    Use `Run.open`; then, unless `run.finished` holds a manifest, write into `run.work` (a folder,
    or the path of the single file) and call `run.finish(counts)`.
    """

    def __init__(
        self, out: Path, folder: bool, kind: str, settings: dict[str, Any], inputs: dict[str, str]
    ) -> None:
        self.out, self.folder, self.kind = out, folder, kind
        self.settings, self.inputs = settings, inputs
        self.work = out.with_name(out.name + ".partial")
        self.finished: Manifest | None = None
        self.resumed = False
        self._lock: IO[str] | None = None
        self._companions: set[Path] = set()  # partial files that were given out
        self._finishing = False

    @classmethod
    def open(
        cls,
        out: Path,
        *,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        folder: bool = True,
        overwrite: bool = False,
    ) -> "Run":
        """Begin, resume, or find finished.

        Args:
            out: The final path.
            kind: What is made; see `Manifest.kind`.
            settings: Plain JSON values. Equal settings and inputs make it the same run.
            inputs: Name of each input -> fingerprint.
            folder: Whether `out` is a folder (else a single file).
            overwrite: Replace what is at `out`, once the new output is complete.

        Raises:
            ArtefactError: `out`, or an unfinished run for it, was made with other settings or
                inputs, or is being made by another process right now.
        """
        run = cls(out, folder, kind, json.loads(json.dumps(dict(settings))), dict(inputs or {}))
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            run._look(overwrite)
        except ArtefactError:
            run.close()
            raise
        except OSError as error:
            run.close()
            raise ArtefactError(
                f"{out} cannot be written: {error.strerror}. Choose another --out."
            ) from None
        return run

    def _look(self, overwrite: bool) -> None:
        # Killed between its last two renames, a file stands there beside the note of its run.
        half = (
            not self.folder and self._run_note().exists() and not manifest_path(self.out).exists()
        )
        if self.out.exists() and not overwrite and not half:
            if not manifest_path(self.out).exists():
                raise ArtefactError(
                    f"{self.out} exists and is not an output of this toolkit. "
                    "Choose another --out, or pass --overwrite to replace it."
                )
            manifest = verify(self.out)
            change = self._difference(manifest.kind, manifest.settings, manifest.inputs)
            if change:
                raise ArtefactError(
                    f"{self.out} belongs to another run ({change}). Choose another "
                    "--out, or pass --overwrite to replace it."
                )
            self.finished = manifest
            return
        self._acquire()
        note = self._run_note()
        if self.folder and note.exists():  # half a file is no use to anyone
            made = json.loads(note.read_text(encoding="utf-8"))
            change = self._difference(made["kind"], made["settings"], made["inputs"])
            if change and not overwrite:
                raise ArtefactError(
                    f"{self.work} is an unfinished run with other settings "
                    f"({change}). Repeat those to resume it, or pass --overwrite "
                    "to start afresh."
                )
            self.resumed = not change
        if not self.resumed:
            _remove(self.work)
            if self.folder:
                self.work.mkdir()
            write_json(note, {"kind": self.kind, "settings": self.settings, "inputs": self.inputs})

    def _run_note(self) -> Path:
        return (
            self.work / _RUN if self.folder else self.out.with_name(self.out.name + ".run.partial")
        )

    def _acquire(self) -> None:
        """Hold a lock on the output for as long as this process works on it."""
        path = self.out.with_name(f".{self.out.name}.lock")
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ArtefactError(
                f"Another process is writing {self.out} right now. Wait for it, or "
                "choose another --out."
            ) from None
        except OSError as error:  # ENOLCK, ENOSYS, EACCES: a network disk without locks
            _log.warning(
                "%s cannot be locked (%s); make sure that no other process writes it.",
                self.out,
                error.strerror,
            )
        if not os.fstat(lock.fileno()).st_nlink:  # its owner finished between open and flock
            lock.close()
            self._acquire()
            return
        self._lock = lock

    def _difference(self, kind: str, settings: dict[str, Any], inputs: dict[str, str]) -> str:
        """What differs from the run that is asked for, in words; empty when nothing does."""
        if kind != self.kind:
            return f"it is a {kind}, not a {self.kind}"
        changes = _changes(settings, self.settings)
        if changes:
            more = f"; {len(changes) - 3} more changed" if len(changes) > 3 else ""
            return "; ".join(changes[:3]) + more
        for name in sorted(inputs.keys() | self.inputs.keys()):
            if inputs.get(name) != self.inputs.get(name):
                return f"its input {name} was another"
        return ""

    def beside(self, suffix: str) -> Path:
        """The partial path of a companion of a single-file output, such as `.rejects.tsv`.

        It is renamed to `<out><suffix>` by `finish` if it exists then.
        """
        path = self.out.with_name(self.out.name + suffix + ".partial")
        self._companions.add(path)
        return path

    def finish(self, counts: Mapping[str, Any], companions: tuple[str, ...] = ()) -> Manifest:
        """Hash, describe and rename the output; afterwards it exists under its final name."""
        self._finishing = True
        if self.folder:
            self._run_note().unlink(missing_ok=True)
            files = {str(p.relative_to(self.work)): sha256(p) for p in _files(self.work)}
        else:
            files = {self.out.name: sha256(self.work)}
            for suffix in companions:
                if self.beside(suffix).exists():
                    files[self.out.name + suffix] = sha256(self.beside(suffix))
        manifest = Manifest(
            kind=self.kind,
            settings=self.settings,
            inputs=self.inputs,
            counts=json.loads(json.dumps(dict(counts))),
            files=files,
            versions=versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if self.folder:
            write_json(self.work / MANIFEST, asdict(manifest))
            _sync(self.work)
            old = self.out.with_name(self.out.name + ".old.partial")
            _remove(old)
            if self.out.exists():
                self.out.replace(old)
            self.work.replace(self.out)
            _remove(old)
        else:
            _sync(self.work)
            for suffix in companions:
                if self.beside(suffix).exists():
                    self.beside(suffix).replace(self.out.with_name(self.out.name + suffix))
            if self.out.is_dir():
                _remove(self.out)
            self.work.replace(self.out)
            write_json(manifest_path(self.out), asdict(manifest))
            self._run_note().unlink(missing_ok=True)
        self.close()
        self.finished = manifest
        return manifest

    def close(self) -> None:
        """Let go of the output without finishing it; a later call can resume."""
        if self._lock is not None:
            self.out.with_name(f".{self.out.name}.lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # A single file cannot be resumed, and half of one would only be in the way. Once `finish`
        # renames things, the note is what tells the next run that it was not done.
        mine = self._lock is not None and not self._finishing
        if error is not None and mine and not self.folder:
            for path in (self.work, self._run_note(), *self._companions):
                path.unlink(missing_ok=True)
        self.close()
        if isinstance(error, OSError) and error.errno in _DISK:
            raise ArtefactError(
                f"{self.work} cannot be written: {_DISK[error.errno]}. Nothing that was finished "
                "is lost; make room, and repeat the command."
            ) from error


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, name by name, in words."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _changes(before, after)
        elif before != after:
            found.append(f"{name} was {before!r}, now {after!r}")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or every file of a folder, to the disk."""
    for file in [path] if path.is_file() else _files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
