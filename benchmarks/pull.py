"""How fast ``sifdeck pull`` is, side by side with whatever else this machine has.

    python -m benchmarks.pull [--runs 3] [--work FOLDER] [--only NAME,NAME]

An image is made once from this machine's own files (about 1.1 GB in five layers, one of
which replaces and removes some of the others' files), pushed to a distribution registry on
loopback, and pulled from there by each contender, from an empty cache every time.  Printed
are medians of wall and processor time, the largest process of the contender's tree, the size
of what was made, and the ratio to ``sifdeck pull``; and the machine's own limit: the larger
of the plain download and (inflate + SHA-256 + zstd-3) / processors, measured in the same run.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parent.parent
MB = 1_000_000
LAYERS = (
    (("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"), 400 * MB),
    (("/usr/bin", "/usr/sbin"), 280 * MB),
    (("/usr/share", "/usr/include"), 250 * MB),
    (("/usr/lib/python3.11", "/usr/lib/python3", "/usr/lib/gcc", "/usr/local"), 200 * MB),
)
"""Folders of each layer, base first, and the bytes that are taken of them at most."""
EVERY_REPLACED = 25
EVERY_REMOVED = 40
"""The top layer replaces and removes each such member of the others."""


def choose(folders: tuple[str, ...], budget: int) -> list[Path]:
    """Return paths in order, until their files reach ``budget`` bytes."""
    chosen: list[Path] = []
    for folder in folders:
        for base, folders_below, files in os.walk(folder):
            folders_below.sort()
            chosen.append(Path(base))
            for name in sorted(files):
                path = Path(base, name)
                size = path.lstat().st_size
                if size <= budget:
                    budget -= size
                    chosen.append(path)
    return chosen


def top_layer(members: list[Path]) -> bytes:
    """Return a layer that replaces some files by others of their size and removes some."""
    out = io.BytesIO()
    files = [path for path in members if path.is_file() and not path.is_symlink()]
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in files[::EVERY_REPLACED]:
            info = tar.gettarinfo(path)
            if info.isreg():
                tar.addfile(info, io.BytesIO(path.read_bytes()[::-1]))
        for path in files[7::EVERY_REMOVED]:
            info = tarfile.TarInfo(str(path.with_name(".wh." + path.name)).lstrip("/"))
            tar.addfile(info)
    return out.getvalue()


def make_layout(folder: Path) -> None:
    """Write the benchmark's image as an OCI layout."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers: list[dict[str, object]] = []
    diff_ids: list[str] = []
    members: list[Path] = []
    for folders, budget in LAYERS:
        chosen = choose(folders, budget)
        members += chosen
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path in chosen:
                tar.add(path, recursive=False)
        layers.append(_gzipped(blobs, out.getvalue(), diff_ids))
    layers.append(_gzipped(blobs, top_layer(members), diff_ids))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "benchmark"} for _ in diff_ids],
    }
    oci = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": _blob(blobs, json.dumps(config).encode(), oci + "config.v1+json"),
        "layers": layers,
    }
    entry = _blob(blobs, json.dumps(manifest).encode(), oci + "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _gzipped(blobs: Path, data: bytes, diff_ids: list[str]) -> dict[str, object]:
    diff_ids.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
    packed = gzip.compress(data, 6, mtime=0)
    print(f"  layer: {len(data) / MB:.0f} MB, packed {len(packed) / MB:.0f} MB", file=sys.stderr)
    return _blob(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip")


def _blob(blobs: Path, data: bytes, media_type: str) -> dict[str, object]:
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"mediaType": media_type, "size": len(data), "digest": f"sha256:{name}"}


@contextmanager
def registry(work: Path) -> Iterator[str]:
    """Run a distribution registry and give its host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    settings = work / "registry.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: {host}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {work / 'registry'}}}}}\n"
    )
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        ["docker-registry", "serve", str(settings)], stdout=quiet, stderr=quiet
    )
    try:
        _await(host)
        yield host
    finally:
        server.terminate()
        server.wait()


def _await(host: str) -> None:
    name, _, port = host.partition(":")
    for _ in range(200):
        try:
            socket.create_connection((name, int(port))).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"the registry at {host} did not start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to get the image.

    Attributes:
        name: As the table shows it.
        needs: Programs.
        script: For ``sh``; ``$REF`` is host/name:tag, ``$OUT`` an empty folder, ``$PYTHON``
            our interpreter, ``$LAYOUT`` the image on disk.
        result: Below ``$OUT``: what it made, for the size; empty where that tells nothing.
    """

    name: str
    needs: tuple[str, ...]
    script: str
    result: str = ""


SIFDECK = "SIFDECK_CACHE_DIR=$OUT/cache exec $PYTHON -m app -q"
SQUASH_ALONE = "$PYTHON -m benchmarks.squash $LAYOUT $OUT/x.sqfs"
FETCH = "skopeo copy -q --src-tls-verify=false docker://$REF oci:$OUT/oci:latest"
UNPACK = FETCH + " && umoci --log error unpack --image $OUT/oci:latest $OUT/b"
SQUASH = "mksquashfs $OUT/b/rootfs $OUT/x.sqfs -no-progress -quiet -comp"
CONTENDERS = (
    Contender(
        name="sifdeck pull",
        needs=(),
        script=f"{SIFDECK} pull --no-https $OUT/x.sif docker://$REF",
        result="x.sif",
    ),
    Contender(
        name="sifdeck pull --keep-layers",
        needs=(),
        script=f"{SIFDECK} pull --keep-layers --no-https $OUT/x.sif docker://$REF",
        result="x.sif",
    ),
    Contender(
        name="sifdeck pull --native",
        needs=(),
        script=f"{SIFDECK} pull --native --no-https $OUT/x.sif docker://$REF",
        result="x.sif",
    ),
    Contender(
        name="sifdeck convert to oci-archive",
        needs=(),
        script=f"{SIFDECK} convert $SIF oci-archive:$OUT/x.tar",
        result="x.tar",
    ),
    Contender(
        name="sifdeck, squash only, all cores",
        needs=(),
        script=f"exec {SQUASH_ALONE}",
        result="x.sqfs",
    ),
    Contender(
        name="sifdeck, squash only, 1 core",
        needs=("taskset",),
        script=f"exec taskset -c 0 {SQUASH_ALONE}",
        result="x.sqfs",
    ),
    Contender(
        name="sifdeck, squash only, 2 cores",
        needs=("taskset",),
        script=f"exec taskset -c 0,1 {SQUASH_ALONE}",
        result="x.sqfs",
    ),
    Contender(name="skopeo copy (download)", needs=("skopeo",), script=FETCH, result="oci"),
    Contender(
        name="podman pull",
        needs=("podman",),
        script="podman --root $OUT/p --runroot $OUT/r pull -q --tls-verify=false $REF",
    ),
    Contender(
        name="skopeo, umoci, mksquashfs gzip",
        needs=("skopeo", "umoci", "mksquashfs"),
        script=f"{UNPACK} && {SQUASH} gzip",
        result="x.sqfs",
    ),
    Contender(
        name="skopeo, umoci, mksquashfs zstd",
        needs=("skopeo", "umoci", "mksquashfs"),
        script=f"{UNPACK} && {SQUASH} zstd",
        result="x.sqfs",
    ),
    Contender(
        name="apptainer pull",
        needs=("apptainer",),
        script="APPTAINER_CACHEDIR=$OUT/cache exec apptainer pull --no-https"
        " $OUT/x.sif docker://$REF",
        result="x.sif",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run.

    Attributes:
        wall: Seconds.
        cpu: Seconds of all its processes.
        peak: Bytes of the largest of them.
        size: Bytes of what it made.
    """

    wall: float
    cpu: float
    peak: int
    size: int


def measure(contender: Contender, environment: dict[str, str], work: Path) -> Measured:
    """Run a contender once, in an empty folder that is removed afterwards."""
    out = Path(tempfile.mkdtemp(dir=work))
    argv = ["sh", "-c", contender.script]
    variables = {**os.environ, **environment, "OUT": str(out)}
    before = time.perf_counter()
    process = subprocess.Popen(argv, env=variables, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    size = _size(out / contender.result) if contender.result else 0
    subprocess.run(
        ["sh", "-c", 'umount "$OUT"/p/overlay'], env=variables, capture_output=True, check=False
    )
    shutil.rmtree(out)
    if status:
        raise SystemExit(f"{contender.name} ended with status {process.returncode}")
    return Measured(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss * 1024,
        size=size,
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def machine_limit(layout: Path) -> float:
    """Return the processor seconds of inflate, SHA-256 and zstd-3 for all layers."""
    import zstandard
    from isal import igzip

    open_gzip: Callable[[BinaryIO], BinaryIO] = igzip.open  # it has no annotations
    steps: dict[str, float] = {"inflate": 0.0, "SHA-256": 0.0, "zstd-3": 0.0}
    digest, compressor = hashlib.sha256(), zstandard.ZstdCompressor(level=3)

    def timed(step: str, work: Callable[[], bytes | None]) -> bytes | None:
        before = time.thread_time()
        result = work()
        steps[step] += time.thread_time() - before
        return result

    for blob in (layout / "blobs" / "sha256").iterdir():
        with blob.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = open_gzip(raw)
            while packed and (chunk := timed("inflate", partial(stream.read, MB))):
                timed("SHA-256", partial(digest.update, chunk))
                timed("zstd-3", partial(compressor.compress, chunk))
    print("processor seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in steps.items()))
    return sum(steps.values())


def main() -> None:
    """Make the image, run the contenders in turn, print the table."""
    parser = argparse.ArgumentParser(description="Compare pulls of one image.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keeps the image for the next time")
    parser.add_argument("--only", default="", help="parts of contenders' names, with commas")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="sifdeck-benchmark-"))
    work.mkdir(parents=True, exist_ok=True)
    layout = work / "layout"
    if not (layout / "index.json").exists():
        print("making the image ...", file=sys.stderr)
        # In a process of its own: what a child is told to have used begins with what its
        # parent held when it forked.
        with ProcessPoolExecutor(1) as pool:
            pool.submit(make_layout, layout).result()
    with registry(work) as host:
        reference = f"{host}/bench/image:latest"
        push = ["skopeo", "copy", "-q", "--dest-tls-verify=false"]
        subprocess.run([*push, f"oci:{layout}:latest", f"docker://{reference}"], check=True)
        environment = {"REF": reference, "PYTHON": sys.executable, "LAYOUT": str(layout)}
        environment["SIF"] = str(work / "image.sif")
        make = ["-m", "app", "-q", "convert", "-F", f"oci:{layout}", environment["SIF"]]
        subprocess.run([sys.executable, *make], check=True, cwd=CHECKOUT)
        compare(_chosen(options.only), environment, work, runs=options.runs)
    if not options.work:
        shutil.rmtree(work)


def _chosen(only: str) -> list[Contender]:
    wanted = [part for part in only.split(",") if part]
    return [
        one
        for one in CONTENDERS
        if all(shutil.which(program) for program in one.needs)
        and (not wanted or any(part in one.name for part in wanted))
    ]


def compare(
    contenders: list[Contender], environment: dict[str, str], work: Path, *, runs: int
) -> None:
    """Run each contender ``runs`` times, in turn, and print medians."""
    found: dict[str, list[Measured]] = {one.name: [] for one in contenders}
    for _ in range(runs):
        for one in contenders:
            found[one.name].append(measure(one, environment, work))
    processors = len(os.sched_getaffinity(0))
    limit = machine_limit(Path(environment["LAYOUT"])) / processors
    ours = _median(found[contenders[0].name], "wall")
    print(f"{'':32} {'wall s':>7} {'cpu s':>7} {'peak MB':>8} {'made MB':>8} {'ratio':>6}")
    for name, measured in found.items():
        wall, cpu = _median(measured, "wall"), _median(measured, "cpu")
        peak, size = _median(measured, "peak") / MB, _median(measured, "size") / MB
        print(f"{name:32} {wall:7.2f} {cpu:7.2f} {peak:8.0f} {size:8.0f} {wall / ours:6.2f}")
        if "download" in name:
            limit = max(limit, wall)
    print(f"{'the machine itself':32} {limit:7.2f} {'':7} {'':8} {'':8} {limit / ours:6.2f}")


def _median(measured: list[Measured], field: str) -> float:
    return statistics.median(float(getattr(one, field)) for one in measured)


if __name__ == "__main__":
    main()
