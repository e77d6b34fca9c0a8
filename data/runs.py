"""Atomic outputs: a temporary name, a manifest, a rename.

Every stage writes through a `Run`. During the run the output is `<out>.partial`; `finish` hashes
its files, writes the manifest and renames everything at once. So a path without `.partial` is
complete, and a killed run leaves only the partial output, which the next call with the same
settings resumes.

The manifest is `manifest.json` inside a folder, and `<file>.manifest.json` next to a single file.
This module does not depend on the content of the files.
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

from data.encoding import ESCAPE
from data.errors import ArtefactError, ConfigError, InputError
from data.folders import walk

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_REFUSALS = (InputError, ConfigError, ArtefactError)
# Checkpoints, shards, tables and images; everything else of an unfinished run is made again.
_RESUMABLE = {".pt", ".parquet", ".png", ".webp", ".safetensors"}
DISK_ERRORS = {  # errors of the disk, not of the program
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large for the file system",
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
    """The description of a finished output.

    Attributes:
        kind: Kind of output: `kg`, `lattice`, `vqgan`, `model`, `predictions` ...
        settings: Every option that affects it, including defaults.
        inputs: Name of each input -> its fingerprint.
        counts: Rows in, kept and rejected with reasons, and other counts and measurements.
        files: Path inside the output -> sha256.
        versions: Of Python, this toolkit and its libraries.
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
        """Return a hash of the content: equal if and only if kind and all files are equal."""
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
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Return a hash of the content of an output, or of a plain file or folder.

    Raises:
        InputError: `path` does not exist.
    """
    if manifest_path(path).exists():
        return read_manifest(path).fingerprint
    if path.is_file():
        return sha256(path)
    if path.is_dir():
        names = [f"{below}{name}" for below, names in walk(path) for name in names]
        names = sorted(n for n in names if Path(n).name != MANIFEST and (path / n).is_file())
        files = {name: sha256(path / name) for name in names}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    raise InputError(f"{path} does not exist.")


def manifest_path(out: Path) -> Path:
    """Return the path of the manifest of the folder or file `out`."""
    return out / MANIFEST if out.is_dir() else out.with_name(out.name + ".manifest.json")


def read_manifest(out: Path) -> Manifest:
    """Read the manifest of an output.

    Raises:
        ArtefactError: It is missing or cannot be read.
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
            f"{path} cannot be read as a manifest: {error}. Write the output again with "
            "--overwrite."
        ) from None


def verify(out: Path) -> Manifest:
    """Return the manifest of an output after checking the sha256 of its files.

    Raises:
        ArtefactError: A file is missing or has changed.
    """
    manifest = read_manifest(out)
    for name, digest in manifest.files.items():
        parts = Path(name).parts
        if ".." in parts or Path(name).is_absolute() or not (out.is_dir() or len(parts) == 1):
            raise ArtefactError(f"{manifest_path(out)} lists {name[:200]!r}, outside its output.")
        path = out / name if out.is_dir() else out.with_name(name)
        if not path.is_file():  # nor a device or a pipe, which may never end
            raise ArtefactError(f"{path} is missing; {manifest_path(out)} lists it.")
        if sha256(path) != digest:
            raise ArtefactError(
                f"{path} changed since it was written: its sha256 differs from "
                f"{manifest_path(out)}. Restore it, or write it again with "
                "--overwrite."
            )
    return manifest


def versions() -> dict[str, str]:
    """Return the versions of Python, this toolkit and the libraries that affect outputs."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that is renamed to `path` when the block ends without an error.

    Text is UTF-8; surrogates, as of a file name in GBK, are written as `\\udcba`, valid in JSON.
    """
    partial = path.with_name(path.name + ".partial")
    encoding, errors, newline = ("utf-8", ESCAPE, "") if "b" not in mode else (None, None, None)
    try:
        with partial.open(mode, encoding=encoding, errors=errors, newline=newline) as file:
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
    """Write a small text file, such as a plot; create its folder.

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

    Call `Run.open`; unless `run.finished` is a manifest, write into `run.work` (a folder, or the
    path of the single file) and call `run.finish(counts)`.
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
        self._companions: dict[str, Path] = {}  # final name -> partial path
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
        """Begin or resume a run, or find its finished output.

        Args:
            out: The final path. A link is followed, also to a place that does not exist yet.
            kind: See `Manifest.kind`.
            settings: JSON values. Equal settings and inputs mean the same run.
            inputs: Name of each input -> fingerprint.
            folder: Whether `out` is a folder or a single file.
            overwrite: Replace what is at `out`, once the new output is complete.

        Raises:
            ArtefactError: `out`, or an unfinished run for it, has other settings or inputs,
                another process is writing it, or nothing can be renamed to `out`.
        """
        if out.is_symlink():
            out = Path(os.path.realpath(out))
        if out.is_mount():
            raise ArtefactError(
                f"{out} is a mount point, and a finished output cannot be renamed to one. Give a "
                f"new name inside it, such as --out {out / kind}."
            )
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
        # A run killed between its last two renames leaves the file and its run note.
        half = (
            not self.folder and self._run_note().exists() and not manifest_path(self.out).exists()
        )
        empty = self.folder and self.out.is_dir() and not any(self.out.iterdir())
        if self.out.exists() and not empty and not overwrite and not half:
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
        if self.folder and note.exists():  # a partial single file cannot be resumed
            made = json.loads(note.read_text(encoding="utf-8"))
            change = self._difference(made["kind"], made["settings"], made["inputs"])
            if change and not overwrite:
                raise ArtefactError(
                    f"{self.work} is an unfinished run with other settings "
                    f"({change}). Repeat those to resume it, or pass --overwrite "
                    "to start anew."
                )
            self.resumed = not change
        if not self.resumed:
            _remove(self.work)
            if self.folder:
                self.work.mkdir()
            write_json(note, {"kind": self.kind, "settings": self.settings, "inputs": self.inputs})

    def _resumable(self) -> bool:
        """Return whether the unfinished folder holds something that a later run continues from."""
        return any(path.suffix in _RESUMABLE for path in _files(self.work))

    def _run_note(self) -> Path:
        return (
            self.work / _RUN if self.folder else self.out.with_name(self.out.name + ".run.partial")
        )

    def _acquire(self) -> None:
        """Lock the output until `close` or the end of the process."""
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
        """Return what differs from this run, in words; empty if nothing does."""
        if kind != self.kind:
            return f"it is a {kind}, not a {self.kind}"
        changes = _changes(settings, self.settings)
        if changes:
            more = f"; {len(changes) - 3} more changed" if len(changes) > 3 else ""
            return "; ".join(changes[:3]) + more
        for name in sorted(inputs.keys() | self.inputs.keys()):
            if inputs.get(name) != self.inputs.get(name):
                return f"its input {name} was different"
        return ""

    def companion(self, suffix: str) -> Path:
        """Return the partial path of a companion of a single file, such as `.rejects.tsv`.

        `finish` lists it in the manifest and renames it to `<out><suffix>` if it exists.
        """
        name = self.out.name + suffix
        return self._companions.setdefault(name, self.out.with_name(name + ".partial"))

    def finish(self, counts: Mapping[str, Any]) -> Manifest:
        """Hash the files, write the manifest, and rename the output to its final name."""
        self._finishing = True
        companions = {name: path for name, path in self._companions.items() if path.exists()}
        if self.folder:
            self._run_note().unlink(missing_ok=True)
            files = {str(p.relative_to(self.work)): sha256(p) for p in _files(self.work)}
        else:
            parts = {self.out.name: self.work, **companions}
            files = {name: sha256(path) for name, path in parts.items()}
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
            for name, path in companions.items():
                path.replace(self.out.with_name(name))
            if self.out.is_dir():
                _remove(self.out)
            self.work.replace(self.out)
            write_json(manifest_path(self.out), asdict(manifest))
            self._run_note().unlink(missing_ok=True)
        self.close()
        self.finished = manifest
        return manifest

    def close(self) -> None:
        """Release the output without finishing it; a later call can resume."""
        if self._lock is not None:
            self.out.with_name(f".{self.out.name}.lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # A single file cannot be resumed, so its partial file is removed; so is the folder of a run
        # that was refused before it had anything to resume. Once `finish` has begun to rename, the
        # run note marks the output as incomplete.
        mine = self._lock is not None and not self._finishing
        if error is not None and mine and not self.folder:
            for path in (self.work, self._run_note(), *self._companions.values()):
                path.unlink(missing_ok=True)
        elif mine and isinstance(error, _REFUSALS) and not self.resumed and not self._resumable():
            _remove(self.work)
        self.close()
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise ArtefactError(
                f"{self.work} cannot be written: {DISK_ERRORS[error.errno]}. Finished outputs are "
                "intact; free some space and repeat the command."
            ) from error


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs between two settings, in words, sorted by name."""
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
