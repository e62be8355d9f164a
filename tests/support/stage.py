"""A made-up login node for pictures of the deck: images, registries, jobs, containers, checks.

Everything is the same at every run: the clock stands still, hosts and users are invented, and a
lab registry on loopback stands in for registries with real names.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from unittest import mock

from app.cli.lab import SHIPPED
from app.memory import Memory
from backend.events import Blob, Failed, Finished, Output, Phase, Resolved, Started, Step
from backend.jobs.identity import ProcessIdentity, boot_id, host_name, start_ticks
from backend.labs.workshop import Workshop, find_place
from backend.playground import Playground
from backend.process import Completed
from backend.runtime.instances import Record, home, write_record
from tests.support import images
from tests.support.decks import NOW, make_desk, write_job
from tests.support.embedded import start_embedded
from tests.support.imagefiles import write_native, write_ocisif

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from app.desk import Desk
    from backend.events import BlobState, Event
    from tests.support.images import MadeImage
    from tests.support.registry import Registry

DAY = 86_400
SOLVER = "ghcr.io/lab/cfd-solver"
PYTORCH = "docker://nvcr.io/nvidia/pytorch:24.10-py3"
STOOD_IN = ("docker.io", "ghcr.io", "quay.io")
REPOSITORIES = (SOLVER, "ghcr.io/lab/mesh-tools", "docker.io/library/python", "quay.io/lab/tools")
LAB = "oci-mode"
SETTINGS = {
    "Entrypoint": ["/usr/bin/solver"],
    "Env": ["PATH=/usr/bin:/bin", "OMP_NUM_THREADS=8"],
    "User": "1000",
    "WorkingDir": "/data",
    "Labels": {"org.opencontainers.image.licenses": "MIT"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The login node.

    Attributes:
        images: Its folder of images.
        state: What the deck and its jobs keep.
    """

    images: Path
    state: Path

    @property
    def jobs(self) -> Path:
        """The folder of the jobs."""
        return self.state / "jobs"

    def desk(self, *, lab: bool = False) -> Desk:
        """Return the services of a deck on this node, opened for a lab or not."""
        memory = Memory(path=self.state / "deck.json", repositories=list(REPOSITORIES))
        workshop = open_lab(self.state) if lab else None
        return make_desk(self.images, state=self.state, memory=memory, lab=workshop)


@contextlib.contextmanager
def set_up(folder: Path) -> Iterator[Stage]:
    """Make the login node in an empty folder; it is the world until the block ends."""
    stage = Stage(images=folder / "images", state=folder / "state")
    for path in (stage.images, stage.jobs, folder / "run"):
        path.mkdir(mode=0o700, parents=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "SIFDECK_STATE_DIR": str(stage.state),
        "SIFDECK_CACHE_DIR": str(folder / "cache"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
    previous = os.getcwd()  # noqa: PTH109
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        for place in ("backend.process.run_tool", "app.screens.lab.run_tool"):
            stack.enter_context(mock.patch(place, examine))
        registry = stack.enter_context(start_embedded(folder / "registry"))
        (folder / "registries.conf").write_text("".join(stand_in(registry.host)))
        fill(registry)
        write_images(stage.images)
        # Whoever shows a process number shows that of init, which runs everywhere.
        stack.enter_context(mock.patch("tests.support.decks.this_process", init))
        write_jobs(stage.jobs)
        write_containers()
        os.chdir(stage.images)
        stack.callback(os.chdir, previous)
        yield stage


# What is on the machine


def before(days: int) -> str:
    """Return the time that was so many days ago, as images write it."""
    return datetime.fromtimestamp(NOW - days * DAY, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_images(folder: Path) -> None:
    """Write seven images whose sizes are holes, which weigh nothing."""
    for name, reference, size in (
        ("pytorch_24.10-py3", "nvcr.io/nvidia/pytorch:24.10-py3", 9_771_000_000),
        ("python_3.12-slim", "docker.io/library/python:3.12-slim", 46_100_000),
        ("cfd-solver_v2.3", f"{SOLVER}:v2.3", 1_288_000_000),
        ("cfd-solver_v2.2", f"{SOLVER}:v2.2", 1_287_000_000),
        ("samtools_1.21", "quay.io/biocontainers/samtools:1.21", 59_700_000),
        ("tidyverse_4.4.1", "docker.io/rocker/tidyverse:4.4.1", 913_000_000),
    ):
        path = folder / f"{name}.oci.sif"
        days = 3 + size // 100_000_000
        write_ocisif(path, reference=reference, created=before(days), settings=SETTINGS)
        os.truncate(path, size)
    os.truncate(write_native(folder / "old-env.sif"), 3_650_000_000)
    for number, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, (NOW - DAY * (number + 2), NOW - DAY * (number + 2)))


def write_containers() -> None:
    """Write the records of three containers: two that run, and one that failed."""
    for name, image, command, minutes in (
        ("calm-otter", "cfd-solver_v2.3.oci.sif", ("solver", "--mesh", "wing.msh"), 72),
        ("swift-heron", "pytorch_24.10-py3.oci.sif", ("jupyter", "lab", "--no-browser"), 8),
        ("old-badger", "python_3.12-slim.oci.sif", ("python", "train.py"), 190),
    ):
        folder = f"{home()}/{name}"
        os.mkdir(folder, 0o700)  # noqa: PTH102
        ended = name == "old-badger"
        record = Record(
            name=name,
            image=f"/scratch/alice/{image}",
            command=command,
            pid=init().pid,
            started_ticks=-1 if ended else init().start,
            created=int(NOW - minutes * 60),
            runtime="crun",
            document={},
        )
        write_record(folder, record)
        if ended:
            with open(f"{folder}/exit", "w", encoding="ascii") as out:  # noqa: PTH123
                out.write("137")


# What is far away


def stand_in(host: str) -> Iterator[str]:
    """Yield the lines of registries.conf by which one registry stands in for others."""
    for name in STOOD_IN:
        yield f'[[registry]]\nprefix = "{name}"\nlocation = "{host}"\ninsecure = true\n'


def fill(registry: Registry) -> None:
    """Push repositories with some tags, two of them for the same image."""
    for days, version, tags in (
        (31, "v2.2", ("v2.2", "v2.2-gpu")),
        (9, "v2.3", ("v2.3",)),
        (1, "v2.4", ("v2.4", "v2.4-gpu", "latest")),
    ):
        layers = [images.layer(images.Entry(name=name, data=version.encode())) for name in "abc"]
        made = images.image(layers, config=SETTINGS, created=before(days))
        for tag in tags:
            registry.push(weighty(made), "lab/cfd-solver", tag)
    for name, tag in (
        ("lab/mesh-tools", "1.8"),
        ("lab/mesh-tools", "1.9"),
        ("library/python", "3.12"),
        ("library/python", "3.13-slim"),
        ("lab/tools", "2024.1"),
    ):
        data = images.layer(images.Entry(name="a", data=tag.encode()))
        registry.push(images.image([data]), name, tag)


def weighty(made: MadeImage) -> MadeImage:
    """Return an image whose manifest says that its layers are large."""
    manifest = json.loads(made.manifest)
    for one, size in zip(manifest["layers"], (28_200_000, 412_000_000, 813_400_000), strict=True):
        one["size"] = size
    return replace(made, manifest=json.dumps(manifest).encode())


def open_lab(folder: Path) -> Workshop:
    """Return a lab as a learner has it who has just begun; nobody serves its registry."""
    place = find_place(SHIPPED, learner="alice")
    playground = Playground(folder=folder / "lab", registry="127.0.0.1:5000")
    playground.work.mkdir(parents=True, exist_ok=True)
    return Workshop(
        place=place,
        lab=place.read(LAB, registry=playground.registry),
        playground=playground,
    )


# What programs answer


async def examine(argv: Sequence[str], **_more: object) -> Completed:
    """Answer for ``sifdeck doctor`` and ``sifdeck lab check``, which look at a real machine."""
    if "doctor" in argv:
        return Completed(stdout=json.dumps([*findings()]), stderr="")
    found = {"passed": False, "text": "no login is stored for 127.0.0.1:5000 yet"}
    return Completed(stdout=json.dumps([{"state": "open", "checks": [found]}]), stderr="")


def findings() -> Iterator[dict[str, str]]:
    """Yield what a doctor would find on this node."""
    for title, found in (
        ("User namespaces", "an ordinary user gets one"),
        ("Mounting in a namespace", "tmpfs can be mounted"),
        ("A /proc of its own", "proc can be mounted in a pid namespace"),
        ("Kernel overlay", "on tmpfs, with removal of folders"),
        ("System call filter", "the default filter can be installed"),
        ("crun", "1.17"),
        ("squashfuse_ll", "0.5.2"),
        ("BuildKit", "buildctl 0.17.1, rootless"),
        ("Room in /scratch/alice", "59 GB of 100 GB are free"),
    ):
        yield {"title": title, "state": "ok", "found": found}
    yield {
        "title": "Subordinate ids",
        "state": "missing",
        "found": "none in /etc/subuid",
        "follows": "images with files of several owners are run with one owner",
        "fix": "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice",
        "who": "administrator",
    }
    yield {
        "title": "Cgroups",
        "state": "limited",
        "found": "pids and memory; not cpu",
        "follows": "limits on CPU time are refused",
        "fix": "Delegate=yes in user@.service",
        "who": "administrator",
    }


def init() -> ProcessIdentity:
    """Return the process that made-up jobs run in."""
    return ProcessIdentity(host=host_name(), boot=boot_id(), pid=1, start=start_ticks(1) or 0)


# Jobs


def write_jobs(jobs: Path) -> None:
    """Write five jobs: done, failed, waiting, and two that run."""
    title = "docker://python:3.12-slim"
    write_job(
        jobs,
        37,
        title=title,
        begun=NOW - 2 * DAY,
        events=(Started(verb="pull", title=title), Finished(size=44 << 20)),
        log=f"2024-10-25T03:33:20.000Z INFO:    Pull {title}\n"
        "2024-10-25T03:33:37.000Z INFO:    Complete: python_3.12-slim.oci.sif (44.1 MB)\n",
    )
    failed = Failed(
        message="nvcr.io refused the credentials",
        why="the stored key was accepted until 2 days ago; the token has expired",
        kept="3 of 38 layers, 410 MB, are in the cache and will not be downloaded again",
        hint="sifdeck registry login nvcr.io, then R",
        exit_code=10,
    )
    write_job(
        jobs,
        38,
        title=PYTORCH,
        argv=("pull", PYTORCH),
        status=10,
        begun=NOW - 7200,
        events=(Started(verb="pull", title=PYTORCH), failed),
        log="2024-10-27T01:33:20.000Z ERROR:   nvcr.io refused the credentials\n",
    )
    write_build(jobs, 40)
    write_pull(jobs, 41)


def write_build(jobs: Path, number: int) -> None:
    """Write a build that runs its seventh step."""
    argv = ("build", "thesis.oci.sif", "./Dockerfile")
    steps = [
        step(1, "FROM docker.io/library/python:3.12", "cached"),
        step(2, "RUN apt-get update", "done", 31.2),
        step(3, "RUN apt-get install -y build-essential", "done", 58.0),
        step(4, "WORKDIR /app", "done", 0.1),
        step(5, "COPY requirements.txt .", "done", 0.1),
        step(6, "RUN pip install --upgrade pip", "done", 6.4),
        step(7, "RUN pip install -r requirements.txt", "running"),
    ]
    printed = (
        "Collecting numpy==2.1.2",
        "  Downloading numpy-2.1.2-cp312-manylinux_2_17_x86_64.whl (16.0 MB)",
        "Collecting torch==2.5.0",
        "  Downloading torch-2.5.0-cp312-manylinux1_x86_64.whl (906.4 MB)",
        "\x1b[33mWARNING: Retrying after connection broken by ReadTimeoutError\x1b[0m",
        "     \x1b[32m━━━━━━━━━━━━━━━━\x1b[0m 380.2/906.4 MB 61.0 MB/s eta 0:00:09",
    )
    write_job(
        jobs,
        number,
        verb="build",
        title="./Dockerfile",
        argv=argv,
        status=None,
        begun=NOW - 291,
        events=(
            Started(verb="build", title="./Dockerfile", target="thesis.oci.sif"),
            *steps,
            *(Output(text=line, step=7) for line in printed),
        ),
        log="".join(f"#7 {line}\n" for line in printed),
    )


def step(
    number: int, name: str, state: Literal["cached", "running", "done"], seconds: float = 0.0
) -> Step:
    """Return a step of the made-up build."""
    return Step(number=number, total=12, name=name, state=state, seconds=seconds, line=number)


def write_pull(jobs: Path, number: int) -> None:
    """Write a pull that is half done."""
    solver = f"docker://{SOLVER}:v2.4"
    write_job(
        jobs,
        number,
        title=solver,
        status=None,
        begun=NOW - 17,
        events=(
            Started(verb="pull", title=solver, target="cfd-solver_v2.4.oci.sif"),
            Resolved(
                reference=solver,
                digest="sha256:" + "c0" * 32,
                platform="linux/amd64",
                total=1_253_600_000,
            ),
            *half_pulled(),
            Phase(name="convert", done=436_000_000, total=1_253_600_000),
        ),
        log=f"2024-10-27T03:33:03.000Z INFO:    Pull {solver}\n",
    )


def half_pulled() -> Sequence[Event]:
    """Return where the layers of the pull stand."""
    return (
        layer(0, "exists", 28_200_000, 28_200_000),
        layer(1, "done", 412_000_000, 412_000_000),
        layer(2, "downloading", 312_700_000, 512_700_000),
        layer(3, "downloading", 44_300_000, 201_300_000),
        layer(4, "retry", 38_400_000, 96_000_000, "2 of 5, from 38 MB"),
        layer(5, "waiting", 0, 3_400_000),
    )


def layer(index: int, state: BlobState, done: int, size: int, note: str = "") -> Blob:
    """Return where the transfer of a made-up layer stands."""
    digest = images.digest(bytes([index]))
    return Blob(
        digest=digest, role="layer", index=index, state=state, done=done, size=size, note=note
    )
