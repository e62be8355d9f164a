"""How long ``sifdeck run IMG true`` takes, beside podman run and a bare crun.

    .venv/bin/python -m benchmarks.start [--runs 20] [--image FILE.oci.sif]

Without ``--image``, a small one is made of Debian's busybox.  podman gets the same tree, in an
overlay store of its own below a temporary folder; crun a bundle that is unpacked already.

Prints medians of wall time and CPU time (user and system, of all processes) in milliseconds,
and what they are of podman's and of bare crun's wall time.  All candidates take turns, so that
a noisy machine is noisy for each.

``nothing to run`` is the same start with ``/bin/true`` in crun's place: the CPU time of our own
code, with both interpreters, the namespaces, the mounts and the start of squashfuse in it.
``no cache`` is the first start of an image on this machine, with an empty cache folder.
``cold pages`` drops the kernel's page cache before each run, which takes root.  ``docker://``
comes out of the cache, by digest and by tag with ``--offline``; both need docker-registry once.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import containers, images
from tests.support.registry import start_registry

ROOT = Path(__file__).parents[1]
SIFDECK = str(Path(sys.executable).with_name("sifdeck"))
# A virtual machine's root may lack CAP_SYS_RESOURCE, so podman's default limits are too high.
PODMAN_LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]
# crun refuses a hybrid cgroup hierarchy; hide its second half, as sifdeck does.
HIDE = ["unshare", "--mount", "sh", "-c"]
HIDE += ['mount -t tmpfs none /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]


@dataclass
class Candidate:
    """A command to measure.

    Attributes:
        name: In the table.
        argv: The command.
        is_cold: Drop the page cache before each run.
        forget: A folder to remove before each run.
        walls: Milliseconds of each run.
        cpus: The same.
    """

    name: str
    argv: list[str]
    is_cold: bool = False
    forget: Path | None = None
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    def measure(self, environment: dict[str, str]) -> None:
        """Run once and note the times."""
        if self.forget:
            shutil.rmtree(self.forget, ignore_errors=True)
            environment = environment | {"SIFDECK_CACHE_DIR": str(self.forget)}
        if self.is_cold:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        quiet = subprocess.DEVNULL
        subprocess.run(self.argv, check=True, stdout=quiet, stderr=quiet, env=environment)
        self.walls.append((time.perf_counter() - began) * 1e3)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.cpus.append(used * 1e3)


def bare_crun(folder: Path, tar: bytes) -> list[str]:
    """Unpack a bundle and return the command that runs true in it."""
    rootfs = folder / "bundle/rootfs"
    rootfs.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(rootfs)], input=tar, check=True)
    subprocess.run(["crun", "spec"], cwd=rootfs.parent, check=True)
    path = rootfs.parent / "config.json"
    document = json.loads(path.read_text())
    document["process"].update(terminal=False, args=["/bin/true"])
    document["mounts"] = [m for m in document["mounts"] if m["type"] != "cgroup"]
    document["linux"]["namespaces"] = [
        n for n in document["linux"]["namespaces"] if n["type"] != "cgroup"
    ]
    path.write_text(json.dumps(document))
    root = f"--root={folder}/state"
    run = ["crun", root, "--cgroup-manager=disabled", "run", f"--bundle={rootfs.parent}", "b"]
    return [*HIDE, *run]


def podman(folder: Path, tar: bytes) -> list[str]:
    """Import the tree into a store below ``folder`` and return the command that runs true."""
    store = [
        "podman",
        f"--root={folder}/store",
        f"--runroot={folder}/run",
        "--storage-driver=overlay",
        "--cgroup-manager=cgroupfs",
        "--events-backend=file",
    ]
    quiet = subprocess.DEVNULL
    subprocess.run([*store, "import", "-q", "-", "bench"], input=tar, check=True, stdout=quiet)
    run = ["run", "--rm", "--network=host", "--runtime=crun", *PODMAN_LIMITS, "bench", "/bin/true"]
    return [*HIDE, *store, *run]


def from_cache(folder: Path) -> list[Candidate]:
    """Run an image from a registry once; return its starts without one."""
    made = images.image([images.busybox_layer()], config={"Cmd": ["sh"]})
    with start_registry(folder) as registry:
        registry.push(made, "bench", "1")
        name = f"docker://{registry.host}/bench"
        run = [SIFDECK, "run", "--runtime=crun", "--no-https"]
        subprocess.run([*run, f"{name}:1", "true"], check=True, stderr=subprocess.DEVNULL)
    return [
        Candidate("docker:// by digest", [*run, f"{name}@{made.digest}", "true"]),
        Candidate("docker:// --offline", [*run, "--offline", f"{name}:1", "true"]),
    ]


def candidates(folder: Path, image: Path | None, tar: bytes) -> list[Candidate]:
    """Return what this machine has, made ready."""
    image = image or containers.busybox(folder)
    runtimes = [name for name in ("crun", "runc") if shutil.which(name)]
    found = [_sifdeck(f"sifdeck, {name}", name, image) for name in (*runtimes, "builtin")]
    found.append(_sifdeck("sifdeck, nothing to run", "/bin/true", image))
    found.append(_sifdeck("sifdeck, no cache", "crun", image))
    found[-1].forget = folder / "forgotten"
    found.append(Candidate("python -I -S -c pass", [sys.executable, "-I", "-S", "-c", "pass"]))
    if shutil.which("crun"):
        found.append(Candidate("bare crun", bare_crun(folder, tar)))
    if shutil.which("podman") and os.getuid() == 0:
        with contextlib.suppress(subprocess.CalledProcessError):
            found.append(Candidate("podman, crun", podman(folder, tar)))
    if shutil.which("docker-registry"):
        found += from_cache(folder)
    if os.getuid() == 0:
        peers = [one for one in found if one.name in {"sifdeck, crun", "bare crun", "podman, crun"}]
        found += [Candidate(f"{one.name}, cold pages", one.argv, is_cold=True) for one in peers]
    found.append(Candidate("sifdeck doctor --json", [SIFDECK, "doctor", "--json"]))
    return found


def _sifdeck(name: str, runtime: str, image: Path) -> Candidate:
    return Candidate(name, [SIFDECK, "run", "--runtime", runtime, str(image), "true"])


def main() -> None:
    """Measure what is installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--image", type=Path)
    wanted = parser.parse_args()
    for package in ("app", "backend"):  # as an installed one has been
        compileall.compile_dir(ROOT / package, quiet=1)
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-bench-"))
    os.environ |= {f"SIFDECK_{one}_DIR": f"{folder}/{one.lower()}" for one in ("CACHE", "STATE")}
    try:
        found = candidates(folder, wanted.image, images.busybox_layer())
        for turn in range(wanted.runs + 1):
            for one in list(found):
                try:
                    one.measure(dict(os.environ))
                except subprocess.CalledProcessError as error:
                    print(f"{one.name} failed with status {error.returncode}")
                    found.remove(one)
            if turn == 0:  # to warm up
                for one in found:
                    one.walls.clear()
                    one.cpus.clear()
        report(found)
    finally:
        mounted = f"{folder}/store/overlay"
        subprocess.run(["umount", mounted], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(folder)


def report(found: list[Candidate]) -> None:
    """Print a line for each candidate."""
    walls = {one.name: statistics.median(one.walls) for one in found}
    print(f"{'':26} {'wall ms':>9} {'CPU ms':>9} {'/ podman':>9} {'/ crun':>9}")
    for one in found:
        cold = ", cold pages" if one.is_cold else ""
        ratios = ""
        for peer in (f"podman, crun{cold}", f"bare crun{cold}"):
            ratios += f" {walls[one.name] / walls[peer]:9.2f}" if peer in walls else f" {'':9}"
        cpu = statistics.median(one.cpus)
        print(f"{one.name:26} {walls[one.name]:9.1f} {cpu:9.1f}{ratios}")


if __name__ == "__main__":
    main()
