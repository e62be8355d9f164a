"""Pulling from a real registry: one file, the same everywhere, or nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.errors import ExitCode
from backend.events import Event, ignore
from backend.pull import PullOptions, cached_image
from backend.reference import parse
from backend.registry.access import Access
from backend.sif.ocisif import read_ocisif
from backend.squashfs.inode import Kind
from backend.squashfs.reader import SquashfsReader
from tests.support import images
from tests.support.images import Entry, directory, layer

if TYPE_CHECKING:
    from tests.support.registry import Registry

pytestmark = pytest.mark.registry


def sifdeck(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    return subprocess.run(
        [sys.executable, "-m", "app", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **more},
        cwd=more.get("PWD"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that images are pulled into."""
    path = tmp_path / "images"
    path.mkdir()
    return path


def three_layers() -> images.MadeImage:
    """Make an image with something hidden in each way."""
    return images.image(
        [
            layer(
                directory("etc"), Entry(name="etc/a", data=b"base"), Entry(name="etc/b", data=b"b")
            ),
            layer(directory("etc"), Entry(name="etc/.wh.b"), directory("opt"), Entry(name="opt/x")),
            layer(directory("etc"), Entry(name="etc/a", data=b"top", mode=0o600, uid=7)),
        ],
        config={"Cmd": ["/etc/a"], "Labels": {"from": "test"}},
    )


def names(path: Path) -> dict[str, bytes]:
    """Return every regular file of a pulled image and its bytes."""
    image = read_ocisif(path)
    with path.open("rb") as file:
        reader = SquashfsReader(file, offset=image.layers[0].offset)
        return {
            name.decode().lstrip("/"): b"".join(reader.read(node))
            for name, node in reader.walk()
            if node.kind is Kind.FILE
        }


def test_a_pull_writes_one_squashed_file(registry: Registry, folder: Path) -> None:
    made = three_layers()
    registry.push(made, "three", "v1")
    done = sifdeck("pull", "--no-https", f"docker://{registry.host}/three:v1", PWD=str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    path = folder / "three_v1.oci.sif"
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    assert names(path) == {"etc/a": b"top", "opt/x": b""}
    image = read_ocisif(path)
    assert image.config.cmd == ("/etc/a",)
    assert image.config.labels == {"from": "test"}
    assert oct(path.stat().st_mode & 0o7777) == "0o755"


def test_the_same_digest_gives_the_same_bytes(registry: Registry, folder: Path) -> None:
    registry.push(three_layers(), "same", "v1")
    uri = f"docker://{registry.host}/same:v1"
    for name, cache in (("one", "a"), ("two", "b"), ("three", "b")):
        done = sifdeck(
            "pull", "--no-https", str(folder / name), uri, SIFDECK_CACHE_DIR=str(folder / cache)
        )
        assert done.returncode == 0, done.stderr
    contents = {(folder / name).read_bytes() for name in ("one", "two", "three")}
    assert len(contents) == 1


def test_an_existing_file_is_kept_without_force(registry: Registry, folder: Path) -> None:
    registry.push(three_layers(), "kept", "v1")
    target = folder / "kept.sif"
    target.write_text("precious")
    uri = f"docker://{registry.host}/kept:v1"
    refused = sifdeck("pull", "--no-https", str(target), uri)
    assert refused.returncode == ExitCode.FAILED
    assert "will not overwrite" in refused.stderr
    assert target.read_text() == "precious"
    assert sifdeck("pull", "-F", "--no-https", str(target), uri).returncode == 0
    assert read_ocisif(target).config.cmd == ("/etc/a",)


def test_json_is_events(registry: Registry, folder: Path) -> None:
    registry.push(three_layers(), "told", "v1")
    done = sifdeck(
        "pull", "--json", "--no-https", str(folder / "x"), f"docker://{registry.host}/told:v1"
    )
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert {"resolved", "blob"} <= set(kinds)


@pytest.mark.parametrize(
    ("image", "status", "words"),
    [
        ("absent:v1", ExitCode.NOT_FOUND, "absent"),
        ("other:v1", ExitCode.NOT_FOUND, "linux/s390x"),
    ],
)
def test_what_is_not_there(
    registry: Registry, folder: Path, image: str, status: int, words: str
) -> None:
    registry.push_index("other", "v1", (three_layers(), "linux/s390x"))
    done = sifdeck("pull", "--no-https", f"docker://{registry.host}/{image}", PWD=str(folder))
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert list(folder.iterdir()) == []


def test_a_dead_registry_is_a_network_error(folder: Path) -> None:
    done = sifdeck("pull", "--no-https", "docker://127.0.0.1:1/x", PWD=str(folder))
    assert done.returncode == ExitCode.NETWORK
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_layer_that_lies_about_its_content_is_refused(registry: Registry, folder: Path) -> None:
    made = three_layers()
    document = json.loads(made.manifest)
    config = json.loads(made.blobs[document["config"]["digest"]])
    config["rootfs"]["diff_ids"][1] = "sha256:" + "0" * 64
    raw = json.dumps(config).encode()
    made.blobs[images.digest(raw)] = raw
    document["config"] |= {"digest": images.digest(raw), "size": len(raw)}
    made.manifest = json.dumps(document).encode()
    registry.push(made, "lies", "v1")
    done = sifdeck("pull", "--no-https", f"docker://{registry.host}/lies:v1", PWD=str(folder))
    assert done.returncode == ExitCode.VERIFICATION, done.stderr
    assert list(folder.iterdir()) == []


def test_a_full_disk_leaves_blobs_and_nothing_else(registry: Registry, tmp_path: Path) -> None:
    """Room for what such a layer comes to as a rule, but not for this one: the disk fills up."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = images.image([layer(Entry(name="big", data=os.urandom(3 << 20)))])
    registry.push(made, "big", "v1")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2600k", "tmpfs", str(small)], check=True, timeout=20
    )
    try:
        cache = tmp_path / "cache"
        done = sifdeck(
            "pull",
            "--no-https",
            f"docker://{registry.host}/big:v1",
            PWD=str(small),
            SIFDECK_CACHE_DIR=str(cache),
        )
        assert done.returncode == ExitCode.NO_SPACE, done.stderr
        assert "Traceback" not in done.stderr
        assert list(small.iterdir()) == []
        digest = json.loads(made.manifest)["layers"][0]["digest"].removeprefix("sha256:")
        assert [path for path in cache.rglob(f"*{digest}*") if path.stat().st_size > 3_000_000]
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_an_ended_pull_leaves_no_target(
    registry: Registry, folder: Path, number: signal.Signals
) -> None:
    data = [layer(Entry(name=f"f{i}", data=os.urandom(4 << 20))) for i in range(8)]
    registry.push(images.image(data), f"ended{number}", "v1")
    argv = ["pull", "--json", "--no-https", f"docker://{registry.host}/ended{number}:v1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *argv],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert process.stdout
    with process.stdout:
        for line in process.stdout:
            if json.loads(line)["kind"] == "blob":
                break
        process.send_signal(number)
        process.stdout.read()
    assert process.wait(timeout=20) != 0
    target = folder / f"ended{number}_v1.oci.sif"
    assert not target.exists()
    started = time.monotonic()
    again = sifdeck(*argv, PWD=str(folder))
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - started < 60
    assert [entry.name for entry in folder.iterdir()] == [target.name]


@pytest.mark.parametrize("compress", ["gzip", "zstd", ""])
@pytest.mark.parametrize("docker", [False, True])
def test_every_kind_of_layer(registry: Registry, folder: Path, compress: str, docker: bool) -> None:
    if docker and compress == "zstd":
        compress = ""  # Docker's own media types know no zstd
    layers = [layer(Entry(name="a", data=b"1")), layer(Entry(name=".wh.a"), Entry(name="b"))]
    made = images.image(layers, compress=compress, docker=docker)
    name = f"kind-{compress or 'plain'}-{docker}".lower()
    registry.push(made, name, "v1")
    done = sifdeck("pull", "--no-https", f"docker://{registry.host}/{name}:v1", PWD=str(folder))
    assert done.returncode == 0, done.stderr
    path = folder / f"{name}_v1.oci.sif"
    assert names(path) == {"b": b""}
    assert read_ocisif(path).manifest.media_type == made.media_type


def test_an_image_without_layers(registry: Registry, folder: Path) -> None:
    registry.push(images.image([]), "empty", "v1")
    done = sifdeck("pull", "--no-https", f"docker://{registry.host}/empty:v1", PWD=str(folder))
    assert done.returncode == 0, done.stderr
    assert names(folder / "empty_v1.oci.sif") == {}


def test_by_digest_and_into_a_named_file(registry: Registry, folder: Path) -> None:
    digest = registry.push(three_layers(), "fixed", "v1")
    uri = f"docker://{registry.host}/fixed@{digest}"
    assert sifdeck("pull", "--no-https", uri, PWD=str(folder)).returncode == 0
    assert (folder / f"fixed@{digest.replace(':', '_')}.oci.sif").exists()
    refused = sifdeck("pull", "--no-https", "no/such/folder/x.sif", uri, PWD=str(folder))
    assert refused.returncode == ExitCode.NOT_FOUND
    assert "no/such/folder" in refused.stderr


def test_a_platform_is_chosen(registry: Registry, folder: Path) -> None:
    arm = images.image([layer(Entry(name="arm"))], architecture="arm64")
    registry.push_index("many", "v1", (three_layers(), "linux/amd64"), (arm, "linux/arm64/v8"))
    uri = f"docker://{registry.host}/many:v1"
    done = sifdeck("pull", "--no-https", "--arch", "arm64", "arm.sif", uri, PWD=str(folder))
    assert done.returncode == 0, done.stderr
    assert names(folder / "arm.sif") == {"arm": b""}
    both = sifdeck("pull", "--arch", "arm64", "--platform", "linux/amd64", uri, PWD=str(folder))
    assert both.returncode == ExitCode.USAGE


def test_processes_that_want_one_image_share_the_work(registry: Registry, tmp_path: Path) -> None:
    data = [layer(Entry(name=f"f{i}", data=os.urandom(2 << 20))) for i in range(3)]
    made = images.image(data)
    registry.push(made, "shared", "v1")
    script = (
        "import sys\n"
        "from backend.pull import PullOptions, cached_image\n"
        "from backend.reference import parse\n"
        "from backend.registry.access import Access\n"
        "options = PullOptions(access=Access(plain_http=True))\n"
        "print(cached_image(parse(sys.argv[1]), options, lambda event: None))\n"
    )
    argv = [sys.executable, "-c", script, f"docker://{registry.host}/shared:v1"]
    env = {**os.environ, "SIFDECK_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": "."}
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, env=env) for _ in range(6)]
    printed = {process.communicate(timeout=100)[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert len(printed) == 1
    log = registry.log.read_text()
    for entry in json.loads(made.manifest)["layers"]:
        assert log.count(f'"GET /v2/shared/blobs/{entry["digest"]}') == 1


_CROWD = """
import os, sys
from pathlib import Path
from backend.events import ignore
from backend.pull import PullOptions, pull_image
from backend.reference import parse
from backend.registry.access import Access

def pull(number):
    os.read(gate, 1)  # ends when the parent closes the other end
    reference = parse(sys.argv[1])
    options = PullOptions(access=Access(plain_http=True))
    pull_image(reference, Path(sys.argv[2], f"{number}.sif"), options, ignore)

gate, opener = os.pipe()
children = []
for number in range(40):
    child = os.fork()
    if not child:
        os.close(opener)
        status = 1
        try:
            pull(number)
            status = 0
        finally:
            os._exit(status)
    children.append(child)
os.close(opener)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_a_crowd_downloads_each_blob_once(registry: Registry, folder: Path, tmp_path: Path) -> None:
    """Forty processes begin at once, each with a file of its own to write."""
    made = images.image([layer(Entry(name=f"f{i}", data=os.urandom(1 << 20))) for i in range(3)])
    registry.push(made, "crowd", "v1")
    argv = [sys.executable, "-c", _CROWD, f"docker://{registry.host}/crowd:v1", str(folder)]
    env = {**os.environ, "SIFDECK_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": "."}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    files = list(folder.glob("*.sif"))
    assert len(files) == 40
    assert len({images.digest(file.read_bytes()) for file in files}) == 1
    for blob in made.blobs:
        assert len(registry.requests_for(f'"GET /v2/crowd/blobs/{blob}')) == 1
    assert not list((tmp_path / "cache/partial").iterdir())


def test_what_was_pulled_once_needs_no_network(registry: Registry, folder: Path) -> None:
    made = three_layers()
    registry.push_index("gone", "v1", (made, "linux/amd64"), (made, "linux/arm64"))
    uri = f"docker://{registry.host}/gone:v1"
    refused = sifdeck("pull", "--offline", uri, PWD=str(folder))
    assert refused.returncode == ExitCode.NOT_FOUND
    assert "not in the cache" in refused.stderr
    assert sifdeck("pull", "--no-https", "one.sif", uri, PWD=str(folder)).returncode == 0
    before = registry.log.read_text()
    done = sifdeck("pull", "--offline", "two.sif", uri, PWD=str(folder))
    assert done.returncode == 0, done.stderr
    assert registry.log.read_text() == before
    assert (folder / "one.sif").read_bytes() == (folder / "two.sif").read_bytes()


def test_a_digest_in_the_cache_needs_no_network(registry: Registry, tmp_path: Path) -> None:
    digest = registry.push_index("known", "v1", (three_layers(), "linux/amd64"))
    reference = parse(f"docker://{registry.host}/known@{digest}")
    options = PullOptions(access=Access(plain_http=True), cache=tmp_path / "cache")
    first = cached_image(reference, options, ignore)
    before = registry.log.read_text()
    told: list[Event] = []
    assert cached_image(reference, options, told.append) == first
    assert registry.log.read_text() == before
    assert told == []
