"""``push``, ``copy`` and ``pull`` between registries, layouts, archives, daemons and files."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.errors import ExitCode
from backend.paths import cache_home
from backend.sif.ocisif import read_ocisif
from tests.support.docker import docker_socket
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import (
    Entry,
    MadeImage,
    busybox_layer,
    digest,
    image,
    layer,
    write_layout,
)
from tests.support.library import TOKEN, serve_library
from tests.support.podman import podman_with
from tests.support.registry import PASSWORD, USER
from tests.support.sifs import partition, sif
from tests.support.tokens import grant, token_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.registry import Registry


__all__ = ["docker_socket"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("backend.registry.retry._FIRST_WAIT_S", 0.001)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make(text: str, **more: str) -> MadeImage:
    base = layer(Entry(name="base", data=b"base"))
    return image([base, layer(Entry(name="text", data=text.encode()))], **more)  # type: ignore[arg-type]


def run(*args: str) -> int:
    return main(["-q", *args])


def judge(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, check=True, text=True).stdout


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[list[str]]:
    with podman_with(tmp_path / "root") as command:
        yield command


def sif_digest(path: str) -> str:
    return digest(Path(path).read_bytes())


def test_push_gives_back_the_same_file(registry: Registry) -> None:
    registry.push(make("push"), "copy/push")
    assert run("pull", "a.sif", f"docker://{registry.host}/copy/push") == 0
    target = f"docker://{registry.host}/copy/pushed:v1"
    assert run("push", "a.sif", target) == 0
    held = read_ocisif(Path("a.sif"))
    assert registry.get_manifest("copy/pushed", "v1")[0] == held.raw_manifest
    assert judge("skopeo", "inspect", "--tls-verify=false", "--raw", target)
    assert run("pull", "b.sif", target) == 0
    assert sif_digest("a.sif") == sif_digest("b.sif")
    # What is there is not sent again.
    with flaky_proxy(registry.host) as proxy:
        assert run("push", "a.sif", f"docker://{proxy.host}/copy/pushed:v2") == 0
        assert proxy.seen("POST|PATCH") == []


def test_artifact_there_and_back(registry: Registry) -> None:
    registry.push(make("oras"), "copy/oras")
    assert run("pull", "a.sif", f"docker://{registry.host}/copy/oras") == 0
    target = f"oras://{registry.host}/copy/artifact:v1"
    assert run("push", "a.sif", target) == 0
    manifest = json.loads(registry.get_manifest("copy/artifact", "v1")[0])
    assert manifest["config"]["mediaType"] == "application/vnd.sylabs.sif.config.v1+json"
    (only,) = manifest["layers"]
    assert only["mediaType"] == "application/vnd.sylabs.sif.layer.v1.sif"
    assert only["annotations"] == {"org.opencontainers.image.title": "a.sif"}
    assert run("pull", "b.sif", target) == 0
    assert sif_digest("a.sif") == sif_digest("b.sif")
    assert run("pull", "c.sif", f"oras://{registry.host}/copy/oras") == ExitCode.FAILED


def test_oras_reads_our_artifact(registry: Registry, here: Path) -> None:
    from oras.client import OrasClient

    registry.push(make("judge"), "copy/judged")
    assert run("pull", "a.sif", f"docker://{registry.host}/copy/judged") == 0
    assert run("push", "a.sif", f"oras://{registry.host}/copy/forart:v1") == 0
    client = OrasClient(hostname=registry.host, insecure=True)
    (file,) = client.pull(target=f"{registry.host}/copy/forart:v1", outdir=str(here / "out"))
    assert sif_digest(file) == sif_digest("a.sif")


@pytest.mark.parametrize("form", ["tar", "tar+zstd"])
def test_podman_runs_what_we_push_as_tar(registry: Registry, form: str, podman: list[str]) -> None:
    made = image([busybox_layer(), layer(Entry(name="hello", data=b"from a squashfs"))])
    name = f"copy/{form.replace('+', '-')}"
    registry.push(made, name)
    assert run("pull", "a.sif", f"docker://{registry.host}/{name}") == 0
    target = f"{registry.host}/{name}:out"
    assert run("push", "--layer-format", form, "a.sif", f"docker://{target}") == 0
    manifest = json.loads(registry.get_manifest(name, "out")[0])
    kind = form.partition("+")[2] or "gzip"
    (only,) = manifest["layers"]
    assert only["mediaType"] == f"application/vnd.oci.image.layer.v1.tar+{kind}"
    judge(*podman, "pull", "-q", "--tls-verify=false", target)
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")  # none that root must raise
    container = (*podman, "--runtime=runc", "run", "--rm", "--network=none", *limits)
    printed = judge(*container, target, "/bin/cat", "/hello")
    assert printed == "from a squashfs"
    assert run("push", "--layer-format", form, "a.sif", f"oras://{target}") == ExitCode.USAGE


def test_native_sif_needs_oras(registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    Path("native.sif").write_bytes(sif(partition(b"hsqs" * 100)))
    assert run("push", "native.sif", f"docker://{registry.host}/copy/native") == ExitCode.FAILED
    text = "non OCI SIF images can only be pushed to OCI registries via oras://"
    assert text in capfd.readouterr().err
    assert run("push", "native.sif", f"oras://{registry.host}/copy/native:v1") == 0
    assert run("pull", "b.sif", f"oras://{registry.host}/copy/native:v1") == 0
    assert sif_digest("native.sif") == sif_digest("b.sif")


@pytest.mark.parametrize("kind", ["refuse", "status"])
def test_upload_goes_on_after_a_cut(
    registry: Registry, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.registry.push._CHUNK", 1 << 20)
    data = os.urandom(5 << 20)
    made = image([layer(Entry(name="big", data=data))], compress="")
    registry.push(made, "copy/big")
    fault = Fault(path="PATCH", kind=kind, status=503, skip=2, times=2)  # type: ignore[arg-type]
    with flaky_proxy(registry.host, fault) as proxy:
        source, target = f"docker://{registry.host}/copy/big", f"docker://{proxy.host}/copy/cut:v1"
        assert run("copy", source, target) == 0
        sent = [request.headers["content-range"] for request in proxy.seen("PATCH")]
        assert len(proxy.seen("POST")) == 2  # the layer, the configuration
    starts = [text.partition("-")[0] for text in sent]
    # Only what was refused went twice; the configuration begins at 0 as well.
    assert len(starts) - len(set(starts)) == 3
    assert registry.get_manifest("copy/cut", "v1")[0] == made.manifest


@pytest.mark.parametrize(
    ("path", "kind", "status", "begun"),
    [
        ("PATCH", "status", 404, 3),  # the registry has forgotten the upload
        ("PATCH", "status", 416, 2),  # and here it has another part of it than we think
        ("PUT .*uploads", "lose", 0, 2),  # the blob is there, and we are not told
        ("PATCH", "lose", 0, 3),  # the old address is no good any more
    ],
)
def test_uploads_that_are_lost(
    registry: Registry, path: str, kind: str, status: int, begun: int
) -> None:
    name = f"lost-{kind}-{status}-{path.partition(' ')[0].lower()}"
    made = image([layer(Entry(name="x", data=os.urandom(100_000)))], compress="")
    registry.push(made, f"copy/{name}")
    fault = Fault(path=path, kind=kind, status=status)  # type: ignore[arg-type]
    with flaky_proxy(registry.host, fault) as proxy:
        source = f"docker://{registry.host}/copy/{name}"
        assert run("copy", source, f"docker://{proxy.host}/copy/{name}-there:v1") == 0
        assert len(proxy.seen("POST")) == begun
    assert registry.get_manifest(f"copy/{name}-there", "v1")[0] == made.manifest
    for blob, data in made.blobs.items():
        assert registry.get_blob(f"copy/{name}-there", blob) == data


@pytest.mark.parametrize(
    ("path", "status", "code", "words"),
    [
        ("POST", 403, ExitCode.AUTHENTICATION, "does not let us push docker://"),
        ("POST", 404, ExitCode.NOT_FOUND, "has no place for docker://"),
        ("PATCH", 404, ExitCode.NOT_FOUND, "to be made there first"),
        ("PATCH", 413, ExitCode.NETWORK, "answered 413"),
        ("PUT .*manifests", 400, ExitCode.NETWORK, "--layer-format tar"),
        ("PUT .*manifests", 500, ExitCode.NETWORK, "the registry is in trouble"),
    ],
)
def test_pushes_that_are_refused(
    path: str,
    status: int,
    code: int,
    words: str,
    registry: Registry,
    capfd: pytest.CaptureFixture[str],
) -> None:
    registry.push(make("refused"), "copy/refused")
    fault = Fault(path=path, kind="status", status=status, times=1000)
    with flaky_proxy(registry.host, fault) as proxy:
        target = f"docker://{proxy.host}/copy/refused-{status}-{path.partition(' ')[0].lower()}:v1"
        assert run("copy", f"docker://{registry.host}/copy/refused", target) == code
    assert words in capfd.readouterr().err


def test_a_digest_in_a_target_must_be_the_image_s(
    registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    made = make("fixed")
    registry.push(made, "copy/fixed")
    source, target = (f"docker://{registry.host}/copy/{name}" for name in ("fixed", "fixed-there"))
    assert run("copy", source, f"{target}@sha256:{'0' * 64}") == ExitCode.USAGE
    assert made.digest in capfd.readouterr().err
    assert run("copy", source, f"{target}@{made.digest}") == 0
    assert registry.get_manifest("copy/fixed-there", made.digest)[0] == made.manifest


def test_blobs_of_a_neighbour_are_mounted(registry: Registry) -> None:
    arm = make("arm", architecture="arm64")
    registry.push_index("copy/many", "v1", (make("amd"), "linux/amd64"), (arm, "linux/arm64"))
    with flaky_proxy(registry.host) as proxy:
        source, target = f"docker://{proxy.host}/copy/many:v1", f"docker://{proxy.host}/copy/all:v1"
        assert run("copy", source, target) == 0
        assert proxy.seen("PATCH") == []
        assert proxy.seen("POST .*mount=.*from=copy%2Fmany")
    assert registry.get_manifest("copy/all", "v1") == registry.get_manifest("copy/many", "v1")
    assert (
        run(
            "copy",
            "--arch",
            "arm64",
            source.replace(proxy.host, registry.host),
            f"docker://{registry.host}/copy/one:v1",
        )
        == 0
    )
    assert registry.get_manifest("copy/one", "v1")[0] == arm.manifest


def test_push_with_a_login(locked_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_layout(Path("layout"), make("login"))
    target = f"docker://{locked_registry.host}/copy/login:v1"
    assert run("copy", f"oci:{source}", target) == ExitCode.AUTHENTICATION
    monkeypatch.setenv("DOCKER_USERNAME", USER)
    monkeypatch.setenv("DOCKER_PASSWORD", PASSWORD)
    assert run("copy", f"oci:{source}", target) == 0


def test_damaged_source_is_not_pushed(registry: Registry) -> None:
    made = make("damaged")
    source = write_layout(Path("layout"), made)
    blob = next(iter(made.blobs))
    (source / "blobs" / blob.replace(":", "/")).write_bytes(b"x" * len(made.blobs[blob]))
    target = f"docker://{registry.host}/copy/damaged:v1"
    assert run("copy", f"oci:{source}", target) == ExitCode.VERIFICATION
    assert registry.request("GET", "/v2/copy/damaged/manifests/v1")[0] == 404


def test_layouts(registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    one, two = make("one"), make("two")
    registry.push(one, "copy/layout", "one")
    registry.push(two, "copy/layout", "two")
    for tag in ("one", "two"):
        assert run("copy", f"docker://{registry.host}/copy/layout:{tag}", f"oci:lay:{tag}") == 0
    assert sorted(path.name for path in Path("lay").iterdir()) == [
        "blobs",
        "index.json",
        "oci-layout",
    ]
    assert digest(judge("skopeo", "inspect", "--raw", "oci:lay:two").encode()) == two.digest
    assert run("pull", "a.sif", "oci:lay") == ExitCode.USAGE
    assert f"it holds one {one.digest}, two {two.digest}" in capfd.readouterr().err
    for reference in ("oci:lay:two", f"oci:lay@{two.digest}"):
        assert run("pull", "-F", "a.sif", reference) == 0
    assert run("pull", "b.sif", f"docker://{registry.host}/copy/layout:two") == 0
    assert (
        read_ocisif(Path("a.sif")).layers[0].digest == read_ocisif(Path("b.sif")).layers[0].digest
    )
    assert run("pull", "c.sif", "oci:lay:three") == ExitCode.NOT_FOUND
    assert run("pull", "c.sif", "oci:nowhere") == ExitCode.NOT_FOUND
    assert run("copy", "oci:lay:two", "oci:again:two") == 0
    assert run("copy", "oci:lay:two", "oci-archive:again.tar") == 0
    shutil.rmtree("lay/blobs")
    for reference in ("oci:again:two", "oci-archive:again.tar"):  # whole without the first
        assert run("pull", "-F", "d.sif", reference) == 0
        assert read_ocisif(Path("d.sif")).layers == read_ocisif(Path("b.sif")).layers
    Path("other").mkdir()
    Path("other/file").touch()
    assert run("copy", "oci:again:two", "oci:other") == ExitCode.USAGE


def test_archives(registry: Registry) -> None:
    registry.push(make("archive"), "copy/archive")
    source = f"docker://{registry.host}/copy/archive"
    assert run("copy", source, "oci-archive:x.tar:v1") == 0
    assert run("copy", source, "oci-archive:x.tar:v1") == ExitCode.FAILED  # it is there
    assert judge("skopeo", "inspect", "oci-archive:x.tar:v1")
    with tarfile.open("x.tar") as archive:  # Apptainer makes no folders of its own
        assert {one.name for one in archive if one.isdir()} == {"blobs", "blobs/sha256"}
    Path("x.tar.gz").write_bytes(gzip.compress(Path("x.tar").read_bytes()))
    assert run("copy", source, "docker-archive:y.tar:lab/tool:9") == 0
    assert judge("skopeo", "inspect", "docker-archive:y.tar:lab/tool:9")
    judge("skopeo", "copy", "-q", "--src-tls-verify=false", source, "docker-archive:z.tar:lab/t:1")
    assert run("pull", "a.sif", source) == 0
    wanted = read_ocisif(Path("a.sif")).layers[0].digest
    for number, reference in enumerate(
        (
            "oci-archive:x.tar:v1",
            "oci-archive:x.tar.gz",
            "docker-archive:y.tar",
            "docker-archive:y.tar:lab/tool:9",
            "docker-archive:z.tar",
        )
    ):
        assert run("pull", f"{number}.sif", reference) == 0
        assert read_ocisif(Path(f"{number}.sif")).layers[0].digest == wanted
    assert run("pull", "c.sif", "docker-archive:y.tar:other:1") == ExitCode.NOT_FOUND
    assert run("pull", "c.sif", "docker-archive:x.tar") == ExitCode.FAILED


def test_a_copy_calls_each_blob_what_it_is(
    registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = make("amd"), make("arm", architecture="arm64")
    registry.push_index("copy/names", "both", (one, "linux/amd64"), (two, "linux/arm64"))
    assert main(["copy", f"docker://{registry.host}/copy/names:both", "oci:lay:1"]) == 0
    lines = capfd.readouterr().err.splitlines()
    done = [line.split()[1:] for line in lines if ": done" in line]
    assert sorted(words[0] for words in done) == ["config"] * 2 + ["layer"] * 3  # the base is one
    assert lines[-1] == "INFO:    Complete: oci:lay:1"


def test_a_docker_archive_gets_the_platform_of_this_machine(registry: Registry) -> None:
    one, two = make("amd"), make("arm", architecture="arm64")
    registry.push_index("copy/single", "both", (one, "linux/amd64"), (two, "linux/arm64"))
    registry.push(two, "copy/single", "arm")
    source = f"docker://{registry.host}/copy/single"
    for tag, platform, wanted in (
        ("both", "", "amd"),
        ("both", "linux/arm64", "arm"),
        ("arm", "", "arm"),  # there is no other
    ):
        options = ["--platform", platform] if platform else []
        assert run("copy", "-F", *options, f"{source}:{tag}", "docker-archive:x.tar:x:1") == 0
        architecture = {"amd": "amd64", "arm": "arm64"}[wanted]
        assert (
            json.loads(judge("skopeo", "inspect", "--config", "docker-archive:x.tar"))[
                "architecture"
            ]
            == architecture
        )


FILES = ("oci.sif", "native.sif")
PLACES = ("oci:lay:x", "oci-archive:x.tar:x", "docker-archive:y.tar:lab/x:1", "docker", "out.sif")


@pytest.mark.parametrize("source", FILES)
@pytest.mark.parametrize("target", PLACES)
def test_sif_files_go_everywhere(source: str, target: str, registry: Registry) -> None:
    registry.push(make("everywhere"), "copy/everywhere")
    image_at = f"docker://{registry.host}/copy/everywhere"
    assert run("pull", "oci.sif", image_at) == 0
    assert run("pull", "--native", "native.sif", image_at) == 0
    if target == "docker":
        target = f"docker://{registry.host}/copy/from-{source.partition('.')[0]}:1"
    assert run("copy", source, target) == 0
    assert run("pull", "back.sif", target) == 0
    for path in ("oci.sif", "back.sif"):
        assert run("cp", f"{path}:/text", f"{path}.text") == 0
    assert Path("back.sif.text").read_bytes() == Path("oci.sif.text").read_bytes() == b"everywhere"
    assert not list((cache_home() / "scratch").glob("*"))


def test_what_nothing_can_be_copied_to(
    registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"docker://{registry.host}/copy/everywhere"
    registry.push(make("everywhere"), "copy/everywhere")
    for target in ("https://h.example/x.sif", "http://h.example/x.sif"):
        assert run("copy", source, target) == ExitCode.USAGE
        told = capfd.readouterr().err
        assert f"nothing can be copied to {target.partition(':')[0]}://" in told
        assert "docker:// and oras://" in told
        assert run("push", "x.sif", target) == ExitCode.USAGE
        assert "transport is not supported for push" in capfd.readouterr().err


@pytest.mark.parametrize("verb", [["pull"], ["run"], ["copy", "oci:lay"]])
def test_a_name_that_is_nothing_says_how_to_name_an_image(
    verb: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(verb[0], "nothing", *verb[1:]) == ExitCode.NOT_FOUND
    error = capfd.readouterr().err
    assert "no such image: 'nothing'" in error
    assert "docker://NAME" in error


def test_offline_asks_nobody(registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    registry.push(make("offline"), "copy/offline")
    registry.push(make("unseen"), "copy/offline", "unseen")
    image, artifact = f"{registry.host}/copy/offline", f"{registry.host}/copy/offline:sif"
    assert run("pull", "a.sif", f"docker://{image}") == 0
    assert run("push", "a.sif", f"oras://{artifact}") == 0
    assert run("pull", "b.sif", f"oras://{artifact}") == 0
    before = len(registry.requests_for("copy/offline"))
    assert run("copy", "--offline", f"docker://{image}", "oci:lay:1") == 0
    assert run("pull", "--offline", "c.sif", f"oras://{artifact}") == 0
    assert run("copy", "--offline", f"oras://{artifact}", "d.sif") == 0
    assert sif_digest("a.sif") == sif_digest("c.sif") == sif_digest("d.sif")
    for unknown in ("copy/offline:unseen", "copy/other"):
        away = f"docker://{registry.host}/{unknown}"
        assert run("copy", "--offline", away, "oci:lay:2") == ExitCode.NOT_FOUND
        assert "is not in the cache" in capfd.readouterr().err
    web = f"http://{registry.host}/copy/offline.sif"
    assert run("pull", "--offline", "e.sif", web) == ExitCode.NOT_FOUND
    assert len(registry.requests_for("copy/offline")) == before


def save_without_names(*made: MadeImage) -> None:
    """Write ``saved.tar`` as docker save does for two images of which one has no name."""
    with tarfile.open("saved.tar", "w") as archive:
        listing = []
        for number, one in enumerate(made):
            blobs = list(one.blobs.values())
            config = next(data for data in blobs if data.startswith(b"{"))
            rest = [data for data in blobs if data is not config]
            names = [f"{number}/{i}.tar" for i in range(len(rest))]
            listing.append(
                {
                    "Config": f"{number}.json",
                    "RepoTags": ["lab/named:1"] if number == 0 else None,
                    "Layers": names,
                }
            )
            for name, data in (
                (f"{number}.json", config),
                *zip(names, rest, strict=True),
                ("manifest.json", json.dumps(listing).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_each_of_several_images_is_named_exactly(capfd: pytest.CaptureFixture[str]) -> None:
    one, two = make("one"), make("two")
    save_without_names(one, two)
    assert run("pull", "a.sif", "docker-archive:saved.tar") == ExitCode.USAGE
    told = capfd.readouterr().err
    assert "docker-archive:saved.tar holds 2 images" in told
    hint = told.partition("name one of them: ")[2].split()
    assert hint[0] == "docker-archive:saved.tar:lab/named:1,"
    assert hint[1].startswith("docker-archive:saved.tar@sha256:")
    for number, reference in enumerate((hint[0].rstrip(","), hint[1])):
        assert run("pull", f"{number}.sif", reference) == 0
    first, second = (read_ocisif(Path(f"{number}.sif")).layers[0].digest for number in (0, 1))
    assert first != second
    nobody = f"docker-archive:saved.tar@sha256:{'0' * 64}"
    assert run("pull", "b.sif", nobody) == ExitCode.NOT_FOUND


@pytest.mark.parametrize("verb", ["pull", "copy", "convert"])
def test_on_a_terminal_the_user_chooses(verb: str, here: Path) -> None:
    one, two = make("one"), make("two")
    for tag, made in (("one", one), ("two", two)):
        assert run("copy", f"oci:{write_layout(here / tag, made, tag)}", f"oci:lay:{tag}") == 0
    arguments = ["a.sif", "oci:lay"] if verb == "pull" else ["oci:lay", "a.sif"]
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", verb, *arguments],
        stdin=follower,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(follower)
    os.write(leader, b"2\n")
    shown = read_to_end(leader)
    assert process.wait(60) == 0, shown
    assert "   1  oci:lay:one" in shown
    assert "Which one" in shown
    assert run("pull", "b.sif", "oci:lay:two") == 0
    assert read_ocisif(Path("a.sif")).layers == read_ocisif(Path("b.sif")).layers


def read_to_end(terminal: int) -> str:
    """Return all that a terminal shows until its last user is gone."""
    shown = b""
    with open(terminal, "rb", buffering=0) as stream, contextlib.suppress(OSError):
        while data := stream.read(1 << 16):
            shown += data
    return shown.decode()


@pytest.mark.parametrize("cut", [10, 600, 5000])
def test_cut_archives(registry: Registry, cut: int) -> None:
    registry.push(make("cut"), "copy/cutarchive")
    assert run("copy", f"docker://{registry.host}/copy/cutarchive", "oci-archive:x.tar") == 0
    Path("x.tar").write_bytes(Path("x.tar").read_bytes()[:cut])
    for kind in ("oci-archive", "docker-archive"):
        assert run("pull", "a.sif", f"{kind}:x.tar") in {ExitCode.FAILED, ExitCode.NOT_FOUND}
    assert not Path("a.sif").exists()


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_web(registry: Registry, here: Path) -> None:
    registry.push(make("web"), "copy/web")
    assert run("pull", "a.sif", f"docker://{registry.host}/copy/web") == 0
    Path("no.sif").write_text("a page about something else")
    with web_server(here) as host, flaky_proxy(host) as proxy:
        assert run("pull", "b.sif", f"http://{proxy.host}/a.sif") == 0
        assert sif_digest("a.sif") == sif_digest("b.sif")
        proxy.faults = [Fault(path="a.sif", kind="cut", after=500)]
        assert run("pull", "c.sif", f"http://{proxy.host}/a.sif?x=1") == 0
        assert sif_digest("a.sif") == sif_digest("c.sif")
        assert run("pull", "d.sif", f"http://{proxy.host}/no.sif") == ExitCode.FAILED
        assert run("pull", "d.sif", f"http://{proxy.host}/none.sif") == ExitCode.NOT_FOUND
    assert run("pull", "e.sif", "./a.sif") == 0
    assert sif_digest("a.sif") == sif_digest("e.sif")


def test_library(registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.push(make("library"), "copy/library")
    assert run("pull", "a.sif", f"docker://{registry.host}/copy/library") == 0
    data = Path("a.sif").read_bytes()
    answer = {"data": {"hash": digest(data).replace(":", "."), "size": len(data)}}
    for place, content in (("images", json.dumps(answer).encode()), ("imagefile", data)):
        file = here / "v1" / place / "lab/default/tool:2.0"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    with web_server(here) as host:
        monkeypatch.setenv("SINGULARITY_LIBRARY", f"http://{host}")
        assert run("pull", "b.sif", "library://lab/tool:2.0") == 0
        assert sif_digest("a.sif") == sif_digest("b.sif")
        assert run("pull", "c.sif", "--library", f"http://{host}", "library://lab/tool:3") == 11
        (here / "v1/imagefile/lab/default/tool:2.0").write_bytes(bytes(len(data)))
        monkeypatch.setenv("SIFDECK_CACHE_DIR", str(here / "other-cache"))
        assert run("pull", "c.sif", "library://lab/tool:2.0") == ExitCode.VERIFICATION


def test_into_a_library_and_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    registry.push(make("shelf"), "copy/shelf")
    source = f"docker://{registry.host}/copy/shelf"
    assert run("pull", "a.sif", source) == 0
    assert run("pull", "--native", "n.sif", source) == 0
    with serve_library() as library:
        monkeypatch.setenv("SIFDECK_LIBRARY", library.url)
        place = "library://alice/tools/solver"
        assert run("push", "a.sif", f"{place}:1") == ExitCode.AUTHENTICATION
        assert "set SIFDECK_LIBRARY_TOKEN" in capfd.readouterr().err
        monkeypatch.setenv("SIFDECK_LIBRARY_TOKEN", "wrong")
        assert run("push", "a.sif", f"{place}:1") == ExitCode.AUTHENTICATION
        monkeypatch.setenv("SIFDECK_LIBRARY_TOKEN", TOKEN)
        assert run("push", "a.sif", f"{place}:1") == 0
        assert run("push", "--library", library.url, "n.sif", f"{place}:native") == 0
        assert library.uploads == 2
        assert run("push", "a.sif", f"{place}:again") == 0  # the file is there
        assert library.uploads == 2
        assert run("copy", "n.sif", "library://alice/tools/other:1") == 0
        assert run("copy", source, "library://alice/tools/made:1") == 0
        assert {name for _, name in library.places} == {
            *("alice", "alice/tools", "alice/tools/solver", "alice/tools/other"),
            "alice/tools/made",
        }
        for tag, original in (("1", "a.sif"), ("again", "a.sif"), ("native", "n.sif")):
            assert run("pull", "-F", "b.sif", f"{place}:{tag}") == 0
            assert sif_digest("b.sif") == sif_digest(original)
        assert run("pull", "c.sif", "library://alice/tools/made:1") == 0
        assert sif_digest("c.sif") == sif_digest("a.sif")
        capfd.readouterr()
        for text in ("library://alice/solver:1", "library://solver"):
            assert run("push", "a.sif", text) == ExitCode.USAGE
            assert "library://ENTITY/COLLECTION/NAME" in capfd.readouterr().err
        assert run("push", "--layer-format", "tar", "a.sif", place) == ExitCode.USAGE


def test_docker_daemon(
    registry: Registry, tmp_path: Path, podman: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman's socket speaks Docker's interface."""
    registry.push(make("daemon"), "copy/daemon", "v1")
    source, socket = f"{registry.host}/copy/daemon:v1", tmp_path / "socket"
    subprocess.run([*podman, "pull", "-q", "--tls-verify=false", source], check=True)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    assert run("pull", "a.sif", f"docker-daemon:{source}") == ExitCode.NETWORK
    service = subprocess.Popen([*podman, "system", "service", "-t", "0", f"unix://{socket}"])
    try:
        while not socket.exists():
            assert service.poll() is None
        assert run("pull", "a.sif", f"docker-daemon:{source}") == 0
        assert run("pull", "b.sif", "docker-daemon:nothing/here:1") == ExitCode.NOT_FOUND
        assert run("copy", "a.sif", "docker-daemon:lab/loaded:v2") == 0
        assert run("copy", "docker-daemon:lab/loaded:v2", "c.sif") == 0
        assert run("copy", f"docker://{source}", f"docker-daemon:lab/l@{'sha256:' + 64 * 'a'}") == 2
    finally:
        service.terminate()
        service.wait()
    assert run("pull", "b.sif", f"docker://{source}") == 0
    assert (
        read_ocisif(Path("a.sif")).layers[0].digest == read_ocisif(Path("b.sif")).layers[0].digest
    )
    assert run("cp", "c.sif:/text", "text") == 0
    assert Path("text").read_bytes() == b"daemon"


def test_into_a_docker_daemon(
    registry: Registry, docker_socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a registry, an index of several platforms; from files; and what it refuses."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{docker_socket}")
    one, two = make("amd"), make("arm", architecture="arm64")
    registry.push_index("copy/load", "both", (one, "linux/amd64"), (two, "linux/arm64"))
    source = f"docker://{registry.host}/copy/load:both"
    assert run("pull", "a.sif", source) == 0
    assert run("pull", "--native", "n.sif", source) == 0
    for number, origin in enumerate((source, "a.sif", "n.sif")):
        target = f"docker-daemon:sifdeck-test/load:{number}"
        assert run("copy", origin, target) == 0
        assert run("pull", f"{number}.sif", target) == 0
        assert run("cp", "-F", f"{number}.sif:/text", "text") == 0
        assert Path("text").read_bytes() == b"amd"
    names = judge("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert {f"sifdeck-test/load:{number}" for number in range(3)} <= set(names)
    assert not list((cache_home() / "scratch").glob("*"))


def test_we_read_what_others_push(registry: Registry, podman: list[str]) -> None:
    from oras.client import OrasClient

    made = make("others")
    layout = write_layout(Path("layout"), made)
    there = f"{registry.host}/copy/by"
    judge(
        "skopeo",
        "copy",
        "-q",
        "--dest-tls-verify=false",
        f"oci:{layout}:latest",
        f"docker://{there}-skopeo:1",
    )
    name = judge(*podman, "pull", "-q", f"oci:{layout}").strip()
    judge(*podman, "push", "-q", "--tls-verify=false", name, f"{there}-podman:1")
    assert run("pull", "a.sif", f"docker://{there}-skopeo:1") == 0
    assert run("pull", "b.sif", f"docker://{there}-podman:1") == 0
    layers = [read_ocisif(Path(file)).layers[0].digest for file in ("a.sif", "b.sif")]
    assert layers[0] == layers[1]
    client = OrasClient(hostname=registry.host, insecure=True)
    kind = "application/vnd.sylabs.sif.layer.v1.sif"
    client.push(target=f"{there}-oras:1", files=[f"a.sif:{kind}"], disable_path_validation=True)
    assert run("pull", "c.sif", f"oras://{there}-oras:1") == 0
    assert sif_digest("a.sif") == sif_digest("c.sif")


def test_mount_with_tokens(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To mount, a token must allow two repositories: to read the one, to write the other."""
    monkeypatch.setenv("DOCKER_USERNAME", USER)
    monkeypatch.setenv("DOCKER_PASSWORD", PASSWORD)
    folder = tmp_path / "tokens"
    folder.mkdir()
    made = make("tokens")
    with token_registry(folder) as (running, server):
        server.anonymous = False
        layout = write_layout(Path("layout"), made)
        source, target = (f"docker://{running.host}/copy/{name}:v1" for name in ("one", "two"))
        assert run("copy", f"oci:{layout}", source) == 0
        capfd.readouterr()
        assert main(["copy", source, target]) == 0
        assert capfd.readouterr().err.count("(mounted)") == 3
        grant(running, server, "copy/two")
        assert running.get_manifest("copy/two", "v1")[0] == made.manifest
