"""What ``sifdeck build`` costs beside the bare builder, cold and from the cache.

    .venv/bin/python benchmarks/build.py [--runs 3] [--builder buildah]

The bare builder does what we ask it for, build and export to an OCI layout, in the same store.
Our conversion to squashfs is measured by ``benchmarks/pull.py``; here it is taken off, by the
time between the first event after the builder's last one and the end.  Prints medians in
seconds, and what is left as overhead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.images import busybox_layer, image
from tests.support.registry import start_registry

SIFDECK = str(Path(sys.executable).with_name("sifdeck"))
STEPS = 8
MEGABYTES = 16
"""What each step writes, so that commits and the export have something to do."""


def dockerfile(base: str) -> str:
    """Return a Dockerfile of some steps, each of which writes a file."""
    write = f"dd if=/dev/urandom of=/file{{n}} bs=1048576 count={MEGABYTES} 2>/dev/null"
    return "\n".join([f"FROM {base}", *(f"RUN {write.format(n=n)}" for n in range(STEPS)), ""])


def bare(builder: str, folder: Path, *, cached: bool) -> float:
    """Return the seconds of build and export by the builder itself."""
    options = ["--isolation", "chroot", "--network", "host", "--layers", "--force-rm"]
    options += ["--tls-verify=false", "--iidfile", str(folder / "iid")]
    options += [] if cached else ["--no-cache"]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        began = time.perf_counter()
        quietly([builder, "build", *options, str(folder / "context")])
        built = (folder / "iid").read_text()
        if builder == "buildah":
            quietly(["buildah", "push", "--quiet", built, f"oci:{out}/layout:latest"])
        else:
            quietly(["podman", "save", "--quiet", "--format", "oci-dir", "-o", f"{out}/l", built])
        return time.perf_counter() - began


def ours(builder: str, folder: Path, *, cached: bool) -> tuple[float, float]:
    """Return the seconds of ``sifdeck build``, whole and without the conversion."""
    argv = [SIFDECK, "build", "-F", str(folder / "x.oci.sif"), str(folder / "context"), "--json"]
    argv += ["--no-https", "--builder", builder, "--source-date-epoch", "off"]
    argv += [] if cached else ["--no-cache"]
    began = time.perf_counter()
    converting = 0.0
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if not converting and event["kind"] == "phase" and event["name"] == "resolve":
                converting = time.perf_counter()
    ended = time.perf_counter()
    if process.returncode:
        raise SystemExit("sifdeck build failed")
    return ended - began, converting - began


def quietly(argv: list[str]) -> None:
    """Run a program whose output nobody needs."""
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--builder", choices=["buildah", "podman"], default="buildah")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conf = folder / "storage.conf"
        conf.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{name}/s"\nrunroot = "{name}/r"\n'
        )
        os.environ["CONTAINERS_STORAGE_CONF"] = str(conf)
        (folder / "context").mkdir()
        (folder / "registry").mkdir()
        with start_registry(folder / "registry") as registry:
            registry.push(image([busybox_layer()], config={"Env": ["PATH=/bin"]}), "base")
            text = dockerfile(f"{registry.host}/base:latest")
            (folder / "context" / "Dockerfile").write_text(text)
            report(options.builder, folder, options.runs)
        subprocess.run(["umount", "-l", f"{name}/s/overlay"], check=False, capture_output=True)


def report(builder: str, folder: Path, runs: int) -> None:
    """Print a line for the cold build and one for the cached."""
    print(f"{'':8}{builder:>10}{'sifdeck':>10}{'whole':>10}{'overhead':>10}")
    for cached in (False, True):
        theirs, mine, whole = [], [], []
        for _ in range(runs):
            theirs.append(bare(builder, folder, cached=cached))
            all_of_it, without = ours(builder, folder, cached=cached)
            mine.append(without)
            whole.append(all_of_it)
        middle = [statistics.median(times) for times in (theirs, mine, whole)]
        over = middle[1] - middle[0]
        share = 100 * over / middle[0]
        cells = "".join(f"{seconds:10.2f}" for seconds in (*middle, over))
        print(f"{'cached' if cached else 'cold':8}{cells}  ({share:+.0f} %)")


if __name__ == "__main__":
    main()
