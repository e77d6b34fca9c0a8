"""Kill every stage at random moments until it finishes, and compare with an undisturbed run.

    python -m tests.soak --kills 8 --seed 0 --stages kg lattice

Each stage runs the real command on generated data. It is killed by SIGKILL with all its processes,
`--kills` times; then its files may not grow beyond a random size, `--disks` times, as on a full
disk; then it is left to finish. Every file of the artefact whose content does not depend on the
clock must equal the undisturbed run's; no traceback, partial file, lock or process may be left.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from data.runs import read_manifest
from tests.small_world import write_inputs

ROOT = Path(__file__).parents[1]
# Files that hold times: speeds of steps, dates, and the plots and pages made of them.
CLOCKED = {"manifest.json", "metrics.jsonl", "loss.svg", "README.md", "evaluation.json",
           "report.html", "gallery.html"}  # fmt: skip
TRAIN = "--batch-size 4 --validations 2 --checkpoint-seconds 0"


class Soak:
    """The folder of a soak, and what was counted in it."""

    def __init__(self, folder: Path, kills: int, disks: int, seed: int) -> None:
        self.folder, self.kills, self.disks = folder, kills, disks
        self.random = random.Random(seed)
        self.killed = self.late = self.filled = 0
        write_inputs(folder)

    def start(self, words: list[str], most: int | None = None) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own; its files have at most `most` bytes."""
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most)) if most else None
        return subprocess.Popen(
            words, cwd=self.folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, preexec_fn=limit,
        )  # fmt: skip

    def finish(self, words: list[str]) -> float:
        """Run a command to its end; return its seconds."""
        began = time.monotonic()
        process = self.start(words)
        errors = process.communicate()[1].decode("utf-8", "replace")
        assert process.returncode == 0, f"{' '.join(words)}: {errors[-2000:]}"
        assert "Traceback" not in errors
        return time.monotonic() - began

    def stage(self, name: str, command: str, *, processes: int = 1) -> dict[str, object]:
        """Run a stage undisturbed and killed; return its figures.

        Raises:
            AssertionError: The artefacts differ, or something is left behind.
        """
        cli = [str(ROOT / "cli.py")]
        if processes > 1:
            cli = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), *cli]
        words = [sys.executable, *cli, *command.split(), "--out"]
        whole, killed = f"{name}-whole", f"{name}-killed"
        seconds = self.finish([*words, whole])
        done = 0
        for _ in range(self.kills):
            process = self.start([*words, killed])
            try:
                process.communicate(timeout=self.random.uniform(0.2, 1.0) * seconds)
                self.late += 1  # it finished before it was to be killed
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                done += 1
        largest = max(file.stat().st_size for file in files_of(self.folder / whole))
        for _ in range(self.disks):
            process = self.start([*words, killed], self.random.randrange(1, largest))
            errors = process.communicate()[1].decode("utf-8", "replace")
            assert process.returncode in (0, 1, 2), f"{name}: {errors[-2000:]}"
            assert "Traceback" not in errors, errors[-2000:]
            self.filled += process.returncode != 0
        self.finish([*words, killed])
        self.killed += done
        compared = compare(self.folder / whole, self.folder / killed)
        left = [p.name for p in self.folder.iterdir() if ".partial" in p.name or ".lock" in p.name]
        assert not left, f"{name} left {left}"
        return {"stage": name, "kills": done, "files": compared, "seconds": round(seconds, 1)}


def files_of(out: Path) -> list[Path]:
    """Return the files of an artefact."""
    return [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]


def compare(whole: Path, killed: Path) -> int:
    """Check that two artefacts have the same files with the same content; return their number."""
    digests = []
    for out in (whole, killed):
        files = read_manifest(out).files
        names = {name.replace(out.name, "out"): digest for name, digest in files.items()}
        digests.append({n: d for n, d in names.items() if Path(n).name not in CLOCKED})
        assert files, f"{out} lists no files"
    assert digests[0].keys() == digests[1].keys(), digests
    differ = [name for name in digests[0] if digests[0][name] != digests[1][name]]
    assert not differ, f"{killed} differs from {whole} in {differ}"
    return len(digests[0])


STAGES = {  # name -> the command without --out, and its number of processes
    "kg": ("kg train triples.tsv --epochs 300 --dim 16", 1),
    "lattice": ("lattice build train.tsv --kg kg-whole", 1),
    "shards": ("lattice build train.tsv val.tsv --kg kg-whole --workers 2", 1),
    "vqgan": ("artist vqgan train lattice-whole --resolution 16 --downsample 4 --ch 16 "
              "--codebook-size 16 --steps 40 --batch-size 4 --checkpoint-seconds 0", 1),
    "finetune": ("artist finetune lattice-whole --valid lattice-whole --kg kg-whole --vqgan "
                 f"vqgan-whole --size nano --text-len 8 --max-steps 40 {TRAIN}", 1),
    "finetune2": ("artist finetune lattice-whole --valid lattice-whole --kg kg-whole --vqgan "
                  f"vqgan-whole --size nano --text-len 8 --max-steps 20 {TRAIN}", 2),
    "predict": ("artist predict test.tsv --model finetune-whole --kg kg-whole --num-images 8 "
                "--batch-size 2", 1),
    "evaluate": ("artist evaluate lattice-whole --model finetune-whole --kg kg-whole", 1),
}  # fmt: skip


def main() -> None:
    """Run the stages; print one line of JSON for each, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8, help="kills of each stage")
    parser.add_argument("--disks", type=int, default=2, help="full disks of each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=STAGES)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        soak = Soak(Path(name), options.kills, options.disks, options.seed)
        for stage in options.stages:
            command, processes = STAGES[stage]
            print(json.dumps(soak.stage(stage, command, processes=processes)), flush=True)
        sums = {"kills": soak.killed, "full_disks": soak.filled, "finished_before": soak.late}
        print(json.dumps(sums))


if __name__ == "__main__":
    main()
