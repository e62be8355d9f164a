"""How long ``sifdeck run IMG true`` takes, beside podman run and a bare crun.

    .venv/bin/python benchmarks/start.py [--runs 20] [--image FILE.oci.sif]

Without ``--image``, a small one is made of Debian's busybox.  podman gets the same tree, in an
overlay store of its own below a temporary folder; crun a bundle that is unpacked already.
Prints medians of wall time and CPU time in milliseconds, and the ratio to ``sifdeck``.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import containers, images

SIFDECK = str(Path(sys.executable).with_name("sifdeck"))
# A virtual machine's root may lack CAP_SYS_RESOURCE, so podman's default limits are too high.
PODMAN_LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]


def measure(argv: list[str], runs: int) -> tuple[float, float]:
    """Return the medians of wall and CPU milliseconds; the first run is not counted."""
    walls, cpus = [], []
    for _ in range(runs + 1):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        walls.append((time.perf_counter() - began) * 1e3)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        cpus.append(used * 1e3)
    return statistics.median(walls[1:]), statistics.median(cpus[1:])


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
    # crun refuses a hybrid cgroup hierarchy; hide its second half, as sifdeck does.
    hide = 'mount -t tmpfs none /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", hide, "sh", *run]


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
    subprocess.run([*store, "import", "-q", "-", "bench"], input=tar, check=True)
    hide = 'mount -t tmpfs none /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    isolated = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    run = ["run", "--rm", "--network=host", "--runtime=crun", *PODMAN_LIMITS, "bench", "/bin/true"]
    return [*isolated, *store, *run]


def main() -> None:
    """Measure what is installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--image", type=Path)
    wanted = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-bench-"))
    try:
        tar = images.busybox_layer()
        image = wanted.image or containers.busybox(folder)
        candidates: dict[str, list[str]] = {}
        for runtime in ("crun", "runc"):
            if shutil.which(runtime):
                run = [SIFDECK, "exec", "--runtime", runtime, str(image), "true"]
                candidates[f"sifdeck, {runtime}"] = run
        if shutil.which("crun"):
            candidates["bare crun"] = bare_crun(folder, tar)
        if shutil.which("podman") and os.getuid() == 0:
            with contextlib.suppress(subprocess.CalledProcessError):
                candidates["podman, crun"] = podman(folder, tar)
        candidates["python -I -S -c pass"] = [sys.executable, "-I", "-S", "-c", "pass"]
        report(candidates, wanted.runs)
    finally:
        subprocess.run(
            ["umount", f"{folder}/store/overlay"], stderr=subprocess.DEVNULL, check=False
        )
        shutil.rmtree(folder)


def report(candidates: dict[str, list[str]], runs: int) -> None:
    """Print a line for each candidate."""
    base = 0.0
    print(f"{'':24} {'wall ms':>9} {'CPU ms':>9} {'ratio':>7}")
    for name, argv in candidates.items():
        try:
            wall, cpu = measure(argv, runs)
        except subprocess.CalledProcessError as error:
            print(f"{name:24} failed with status {error.returncode}")
            continue
        base = base or wall
        print(f"{name:24} {wall:9.1f} {cpu:9.1f} {wall / base:7.2f}")


if __name__ == "__main__":
    main()
