"""Outputs are complete or absent, have a manifest, and are only overwritten on request."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data import runs
from data.errors import ArtefactError, InputError
from data.runs import (
    Run,
    atomic,
    fingerprint,
    manifest_path,
    read_manifest,
    verify,
    versions,
    write_json,
)
from tests.conftest import ROOT


def open_run(out: Path, folder: bool = True, overwrite: bool = False, **settings: object) -> Run:
    return Run.open(
        out,
        kind="thing",
        settings={"seed": 0, **settings},
        inputs={"source": "abc"},
        folder=folder,
        overwrite=overwrite,
    )


def make(out: Path, text: str = "hello", **settings: object) -> None:
    with open_run(out, **settings) as run:
        assert run.finished is None
        (run.work / "part.txt").write_text(text)
        run.finish({"rows": 1})


def make_file(out: Path, text: str = "hello", **settings: object) -> None:
    with open_run(out, folder=False, **settings) as run:
        run.work.write_text(text)
        run.companion(".rejects.tsv").write_text("1\tbad\n")
        run.finish({"rows": 1})


def test_a_folder_appears_under_its_name_only_when_it_is_finished(tmp_path):
    out = tmp_path / "out"
    with open_run(out) as run:
        (run.work / "part.txt").write_text("half")
        assert not out.exists()
        run.finish({"rows": 1})
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "part.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_manifest_records_settings_inputs_and_versions(tmp_path):
    make(tmp_path / "out")
    assert manifest_path(tmp_path / "out") == tmp_path / "out" / "manifest.json"
    manifest = read_manifest(tmp_path / "out")
    assert manifest.settings == {"seed": 0}
    assert manifest.inputs == {"source": "abc"}
    assert manifest.counts == {"rows": 1}
    assert set(manifest.files) == {"part.txt"}
    assert manifest.versions == versions()
    assert manifest.versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_single_file_has_its_manifest_and_companions_next_to_it(tmp_path):
    out = tmp_path / "table.parquet"
    make_file(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "table.parquet",
        "table.parquet.manifest.json",
        "table.parquet.rejects.tsv",
    ]
    assert set(verify(out).files) == {"table.parquet", "table.parquet.rejects.tsv"}


def test_a_finished_and_unchanged_output_is_kept(tmp_path):
    make(tmp_path / "out")
    with open_run(tmp_path / "out") as run:
        assert run.finished is not None
        assert run.finished.counts == {"rows": 1}


@pytest.mark.parametrize("maker", [make, make_file])
def test_the_output_of_another_run_is_refused_with_the_difference(tmp_path, maker):
    out = tmp_path / "out"
    maker(out)
    with pytest.raises(ArtefactError, match="seed was 0, now 1"):
        open_run(out, folder=maker is make, seed=1)
    with pytest.raises(ArtefactError, match="epochs was None, now 3"):
        open_run(out, folder=maker is make, epochs=3)


def test_a_folder_that_is_not_an_output_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtefactError, match="not an output of this toolkit"):
        open_run(tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_overwriting_keeps_the_old_output_until_the_new_one_is_complete(tmp_path):
    out = tmp_path / "out"
    make(out, "old")
    with open_run(out, overwrite=True, seed=1) as run:
        (run.work / "part.txt").write_text("new")
        assert (out / "part.txt").read_text() == "old"
        run.finish({"rows": 1})
    assert (out / "part.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_unfinished_run_is_resumed_with_its_settings_and_refused_with_others(tmp_path):
    out = tmp_path / "out"
    with open_run(out) as run:
        (run.work / "part.txt").write_text("half")
    with open_run(out) as run:
        assert run.resumed
        assert (run.work / "part.txt").read_text() == "half"
    with pytest.raises(ArtefactError, match="unfinished run with other settings"):
        open_run(out, seed=1)
    with open_run(out, seed=1, overwrite=True) as run:
        assert not run.resumed
        assert not (run.work / "part.txt").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "part.txt").write_text("hellO"), r"part\.txt changed since it was"),
        (lambda out: (out / "part.txt").unlink(), r"part\.txt is missing"),
        (lambda out: (out / "manifest.json").write_text("{"), "cannot be read as a manifest"),
    ],
    ids=["changed byte", "missing file", "damaged manifest"],
)
def test_damage_is_found_by_checking_and_by_the_next_run(tmp_path, damage, message):
    make(tmp_path / "out")
    damage(tmp_path / "out")
    for look in (verify, open_run):
        with pytest.raises(ArtefactError, match=message):
            look(tmp_path / "out")


def check_that_it_is_locked(out: Path) -> None:
    with open_run(out), pytest.raises(ArtefactError, match="Another process is writing"):
        open_run(out)


def test_two_processes_do_not_write_the_same_output(tmp_path):
    check_that_it_is_locked(tmp_path / "out")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EACCES])
def test_a_disk_without_locks_is_written_with_a_warning(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runs.fcntl, "flock", refuse)
    make(tmp_path / "out")
    assert f"cannot be locked ({os.strerror(number)})" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_lock_file_that_its_owner_has_removed_locks_nothing(tmp_path, monkeypatch):
    flock, removed = runs.fcntl.flock, []

    def remove_first(lock, operation):
        if not removed:
            removed.append(lock.name)
            Path(lock.name).unlink()  # as the owner does between our open and flock
        flock(lock, operation)

    monkeypatch.setattr(runs.fcntl, "flock", remove_first)
    check_that_it_is_locked(tmp_path / "out")
    assert removed


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = f"""
import os
from pathlib import Path
from data.runs import Run
Run.open(Path({str(tmp_path / "out")!r}), kind="thing", settings={{"seed": 0}},
         inputs={{"source": "abc"}})
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert not (tmp_path / "out").exists()
    make(tmp_path / "out")
    assert (tmp_path / "out").exists()


def test_fingerprints_follow_content_and_not_names_or_times(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    make(tmp_path / "c", "other")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "c")
    with pytest.raises(InputError, match="does not exist"):
        fingerprint(tmp_path / "nothing")


def test_an_error_while_writing_keeps_the_old_file_and_no_partial_one(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def fail_in_the_middle() -> None:
        with atomic(path) as file:
            file.write("{")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ArtefactError, match="Choose another --out"):
        open_run(tmp_path / "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing_under_the_final_name(tmp_path):
    out = tmp_path / "out"

    def fill():
        with Run.open(out, kind="kg", settings={}) as run:
            (run.work / "big").symlink_to("/dev/full")
            (run.work / "big").write_bytes(b"x" * 10_000)

    with pytest.raises(ArtefactError, match="disk is full"):
        fill()
    assert not out.exists()
    with Run.open(out, kind="kg", settings={}) as run:
        assert run.resumed


def test_a_place_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="Choose another --out"):
        open_run(tmp_path / "file" / "out")


def fail_during(out: Path, content: str, *, finish: bool = False) -> None:
    with open_run(out, folder=False) as run:
        run.work.write_text(content)
        run.companion(".rejects.tsv").write_text("line 1")
        if finish:
            run.finish({})
        raise InputError("nothing can be used")


def test_a_single_file_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError):
        fail_during(tmp_path / "out.tsv", "half")
    assert not list(tmp_path.iterdir())


def test_a_finished_file_survives_what_fails_afterwards(tmp_path):
    out = tmp_path / "out.tsv"
    with pytest.raises(InputError):
        fail_during(out, "whole", finish=True)
    assert verify(out).kind == "thing"
    with pytest.raises(InputError):  # the output is finished: partial files belong to another run
        fail_during(out, "another process writes here")
    assert verify(out).kind == "thing"
    assert out.with_name("out.tsv.partial").exists()


@pytest.mark.parametrize("exists", [True, False], ids=["to-a-folder", "dangling"])
def test_a_link_is_followed_and_stays_a_link(tmp_path, exists):
    out, target = tmp_path / "out", tmp_path / "disk" / "there"
    out.symlink_to(target)
    if exists:
        target.mkdir(parents=True)
    make(out)
    assert out.is_symlink()
    assert (target / "part.txt").read_text() == "hello"
    with open_run(out, overwrite=True, seed=1) as run:
        (run.work / "part.txt").write_text("replaced")
        run.finish({"rows": 1})
    assert out.is_symlink()
    assert (target / "part.txt").read_text() == "replaced"
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["there"]


def test_an_empty_folder_is_taken_as_the_output(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert (tmp_path / "out" / "part.txt").read_text() == "hello"


def test_a_mount_point_is_refused_before_any_work():
    mount = Path("/dev/shm")
    if not mount.is_mount():
        pytest.skip("no mount point known here")
    before = sorted(mount.parent.iterdir())
    with pytest.raises(ArtefactError, match=r"mount point.*--out /dev/shm/thing"):
        open_run(mount)
    assert sorted(mount.parent.iterdir()) == before


def refuse(out: Path, file: str) -> None:
    """A run that writes a file and then finds its input unusable."""
    with open_run(out) as run:
        (run.work / file).write_text("made")
        raise InputError("the next file cannot be read")


def test_a_refused_run_leaves_nothing_unless_there_is_something_to_resume(tmp_path):
    with pytest.raises(InputError):
        refuse(tmp_path / "new", "half.tsv")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError):
        refuse(tmp_path / "begun", "shard.parquet")
    with pytest.raises(InputError):
        refuse(tmp_path / "begun", "half.tsv")  # resumed
    kept = {path.name for path in (tmp_path / "begun.partial").iterdir()}
    assert {"shard.parquet", "half.tsv"} <= kept


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"BZh91AY&SY\x00\x00\x00", "bzip2"),
        (b"\x00\x01\n", "NUL character"),
        ("甲\t乙\n".encode(), "wrong column count"),
    ],
)
def test_a_command_whose_input_is_refused_leaves_nothing(tmp_path, command, content, reason):
    (tmp_path / "t.tsv").write_bytes(content)
    code, _, err = command("kg", "train", tmp_path / "t.tsv", "--out", tmp_path / "kg")
    assert (code, reason in err) == (2, True)
    code, _, _ = command("artist", "vqgan", "train", tmp_path / "t.tsv", "--out", tmp_path / "vq")
    assert code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["t.tsv"]


def test_a_command_follows_a_dangling_link_and_a_second_one_finds_the_result(tmp_path, command):
    (tmp_path / "t.tsv").write_text("红果\t类\t水果\n青果\t类\t水果\n", encoding="utf-8")
    out = tmp_path / "kg"
    out.symlink_to(tmp_path / "disk" / "not-yet")
    words = ("kg", "train", tmp_path / "t.tsv", "--out", out, "--epochs", "1")
    assert command(*words)[0] == 0
    code, said, _ = command(*words)
    assert (code, "is finished and unchanged" in said) == (0, True)
    assert (tmp_path / "disk" / "not-yet" / "entity2id.txt").exists()
