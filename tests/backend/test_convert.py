"""Every form of an image into every other: the files, their owners and links come through."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.convert import Target, convert_image, parse_target
from backend.errors import BackendError, ExistsError, NotFoundError, UsageError
from backend.events import Phase, ignore
from backend.oci.platform import parse_platform
from backend.pull import PullOptions
from backend.reference import parse
from backend.sif.inspection import inspect_file
from backend.sif.ocisif import read_ocisif
from tests.backend.layers.model import expected
from tests.backend.layers.test_keep import without_links
from tests.support.images import (
    Entry,
    MadeImage,
    busybox_layer,
    digest,
    directory,
    hardlink,
    image,
    layer,
    symlink,
    write_layout,
)
from tests.support.podman import podman_with
from tests.support.squashfs import Seen, need_root, snapshot, unsquashed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.convert import Form

LAYERS = [
    [
        directory("./", 0o755, mtime=3),
        directory("bin", mtime=1),
        Entry(name="bin/tool", data=b"tool" * 100_000, mode=0o4755, uid=5, gid=70_000),
        hardlink("bin/same", "bin/tool"),
        directory("old", 0o700, uid=9),
        Entry(name="old/gone", data=b"x"),
        Entry(
            name="cap",
            data=b"c",
            pax={"SCHILY.xattr.security.capability": "\x01\0\0\x02" + "\0" * 16},
        ),
        Entry(name="null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Entry(name="pipe", kind=tarfile.FIFOTYPE, mode=0o600),
        Entry(name="noted", data=b"n", pax={"SCHILY.xattr.user.note": "a=b\n\udcff"}),
        hardlink("old-note", "noted"),
        Entry(name="line\nbreak \udcfe", data=b"any byte but two"),
        Entry(name="becomes", data=b"a directory"),
    ],
    [
        directory("old", 0o710, uid=9),
        Entry(name="old/.wh..wh..opq"),
        Entry(name="old/new", data=b"new\n"),
        Entry(name="bin/.wh.same"),
        symlink("link", "bin/tool"),
        directory("becomes", 0o2750, gid=3),
        Entry(name="becomes/full", data=b"f"),
        directory("n" * 120),
        Entry(name="n" * 120 + "/" + "ü" * 60, data=b"long", mtime=2**32 - 1),
    ],
]
SOURCES = ("oci", "oci-archive", "docker-archive", "oci-sif", "kept", "sandbox")
TARGETS = ("oci-sif", "oci", "oci-archive", "docker-archive", "sandbox")


def options(tmp_path: Path, **more: object) -> PullOptions:
    amd64 = parse_platform("linux/amd64")
    return PullOptions(platform=amd64, cache=tmp_path / "cache", shared_cache=None, **more)  # type: ignore[arg-type]


def made_image() -> MadeImage:
    return image([layer(*entries) for entries in LAYERS], config={"Cmd": ["/bin/tool"]})


def convert(source: str, target: Target, tmp_path: Path, **more: object) -> str:
    return convert_image(parse(source), target, options(tmp_path, **more), ignore).digest


def make(form: str, tmp_path: Path, name: str = "made") -> str:
    """Make the image in a form and return how a user names it."""
    layout = tmp_path / "origin"
    if not layout.exists():
        write_layout(layout, made_image())
    if form == "oci":
        return f"oci:{layout}"
    path = tmp_path / name
    kept = form == "kept"
    target = Target(form="oci-sif" if kept else form, path=path)  # type: ignore[arg-type]
    convert(f"oci:{layout}", target, tmp_path, keep_layers=kept)
    return f"{form}:{path}" if form in {"oci-archive", "docker-archive"} else str(path)


def files_of(named: str, tmp_path: Path) -> dict[bytes, Seen]:
    """Return the files of an image in any form."""
    path = tmp_path / "judged"
    convert(named, Target(form="oci-sif", path=path), tmp_path)
    (stored,) = read_ocisif(path).layers
    with unsquashed(path, offset=stored.offset) as root:
        found = snapshot(root)
    path.unlink()
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_files_come_through(source: str, target: str, tmp_path: Path) -> None:
    need_root()
    named = make(source, tmp_path)
    path = tmp_path / "target"
    convert(named, Target(form=target, path=path), tmp_path)  # type: ignore[arg-type]
    prefix = f"{target}:" if target not in {"oci-sif", "sandbox"} else ""
    got, wanted = files_of(f"{prefix}{path}", tmp_path), expected(LAYERS)
    for seen in (got, wanted):  # mkfs and mkdir have their own say on the root
        seen.pop(b"")
    assert without_links(got) == without_links(wanted)


@pytest.mark.parametrize("source", ["oci", "kept"])
@pytest.mark.parametrize("target", [*TARGETS, "kept"])
def test_progress_goes_on_to_its_end(source: str, target: str, tmp_path: Path) -> None:
    seen: list[Phase] = []
    named = make(source, tmp_path)
    form = Target(form="oci-sif" if target == "kept" else target, path=tmp_path / "target")  # type: ignore[arg-type]
    chosen = options(tmp_path, keep_layers=target == "kept")
    convert_image(
        parse(named), form, chosen, lambda one: seen.append(one) if type(one) is Phase else None
    )
    for name in {one.name for one in seen} - {"resolve"}:
        phase = [one for one in seen if one.name == name]
        assert [one.done for one in phase] == sorted(one.done for one in phase)
        assert [one.state for one in phase].index("done") == len(phase) - 1


@pytest.mark.parametrize("target", ["oci", "oci-archive"])
@pytest.mark.parametrize("source", ["oci", "oci-archive"])
def test_an_image_of_archives_keeps_its_digest(source: str, target: str, tmp_path: Path) -> None:
    named = make(source, tmp_path)
    path = tmp_path / "target"
    made = convert(named, Target(form=target, path=path, tag="v1"), tmp_path)  # type: ignore[arg-type]
    assert made == made_image().digest
    again = Target(form="oci", path=tmp_path / "again")
    assert convert(f"{target}:{path}:v1", again, tmp_path) == made
    for name, data in made_image().blobs.items():
        assert (tmp_path / "again" / "blobs" / name.replace(":", "/")).read_bytes() == data


@pytest.mark.parametrize("source", ["oci-sif", "kept"])
@pytest.mark.parametrize("target", ["oci", "oci-archive", "docker-archive"])
def test_skopeo_reads_what_came_back(source: str, target: str, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("no skopeo")
    named = make(source, tmp_path)
    path = tmp_path / "target"
    form = Target(form=target, path=path, tag="" if target == "docker-archive" else "t")  # type: ignore[arg-type]
    convert(named, form, tmp_path)
    suffix = "" if target == "docker-archive" else ":t"
    copy = ["skopeo", "copy", "-q", f"{target}:{path}{suffix}", f"oci:{tmp_path / 'copied'}:x"]
    subprocess.run(copy, check=True, capture_output=True)
    argv = ["skopeo", "inspect", "--config", f"oci:{tmp_path / 'copied'}:x"]
    config = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert config["config"]["Cmd"] == ["/bin/tool"]
    assert len(config["rootfs"]["diff_ids"]) == (2 if source == "kept" else 1)
    found = files_of(f"oci:{tmp_path / 'copied'}", tmp_path)
    found[b""] = expected(LAYERS)[b""]
    assert without_links(found) == without_links(expected(LAYERS))


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[list[str]]:
    need_root()
    with podman_with(tmp_path / "store") as command:
        yield command


@pytest.mark.parametrize(
    ("target", "keep"), [("oci", True), ("oci-archive", False), ("docker-archive", True)]
)
def test_podman_has_the_same_files_and_runs_them(
    target: Form, keep: bool, tmp_path: Path, podman: list[str]
) -> None:
    layers = [busybox_layer(), *(layer(*entries) for entries in LAYERS)]
    config = {"Cmd": ["/bin/cat", "/old/new"], "User": "0"}
    write_layout(tmp_path / "origin", image(layers, config=config))
    sif, path = tmp_path / "image.sif", tmp_path / "loaded"
    options = {"keep_layers": keep}
    convert(f"oci:{tmp_path / 'origin'}", Target(form="oci-sif", path=sif), tmp_path, **options)
    convert(str(sif), Target(form=target, path=path, tag="t:1"), tmp_path)
    name = judge(*podman, "pull", "-q", f"{target}:{path}").split()[-1]
    mounted = judge(*podman, "image", "mount", name)
    found, wanted = snapshot(Path(mounted)), expected(LAYERS)
    same = [path for path in wanted if path != b""]  # podman has its own say on the root
    assert {path: found.get(path) for path in same} == {path: wanted[path] for path in same}
    assert found.keys() >= {b"bin/busybox", b"etc/passwd"}
    assert not found.keys() & {b"old/gone", b"bin/same"}
    judge(*podman, "image", "umount", "-a")
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")  # none that root must raise
    container = (*podman, "--runtime=runc", "run", "--rm", "--network=none", *limits)
    assert judge(*container, name) == "new"


def judge(*argv: str) -> str:
    """Run another program and return what it prints; show what it says when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_archive_names_its_folders(tmp_path: Path) -> None:
    """Apptainer makes none that has no entry before the files in it."""
    target = tmp_path / "out.tar"
    convert(make("oci-sif", tmp_path), Target(form="oci-archive", path=target), tmp_path)
    with tarfile.open(target) as archive:
        names = [member.name + "/" * member.isdir() for member in archive]
    blobs = [name for name in names if name.startswith("blobs/") and not name.endswith("/")]
    assert len(blobs) == len(set(names)) - 4, names  # two documents, two folders
    assert names.index("blobs/") < names.index("blobs/sha256/") < names.index(blobs[0])


def test_a_native_sif_and_back(tmp_path: Path) -> None:
    need_root()
    native = tmp_path / "native.sif"
    convert(make("kept", tmp_path), Target(form="sif", path=native), tmp_path)
    found = files_of(str(native), tmp_path)
    wanted = expected(LAYERS)
    for path in wanted.keys() - {b""}:
        assert without_links(found)[path] == without_links(wanted)[path]
    back = tmp_path / "back"
    convert(str(native), Target(form="oci", path=back), tmp_path)
    assert files_of(f"oci:{back}", tmp_path)[b"bin/tool"].uid == 5


@pytest.mark.parametrize("source", ["oci", "oci-archive", "oci-sif", "sandbox"])
def test_the_definition_of_a_native_sif_says_what_it_is_made_of(
    source: str, tmp_path: Path
) -> None:
    native = tmp_path / "native.sif"
    named = make(source, tmp_path)
    convert(named, Target(form="sif", path=native), tmp_path)
    agent, name = source, str(made_image().digest)
    if source == "oci-sif":
        agent, name = "localimage", read_ocisif(Path(named)).manifest_digest
    elif source == "sandbox":
        agent, name = "localimage", "a folder"
    found = inspect_file(native)
    assert found.attributes["deffile"] == f"bootstrap: {agent}\nfrom: {name}\n\n"
    assert found.provenance.reference == f"{agent}:{name}"


def test_an_oci_sif_is_stored_as_it_is(tmp_path: Path) -> None:
    named = make("oci-sif", tmp_path)
    target = tmp_path / "copy"
    assert convert(named, Target(form="oci-sif", path=target), tmp_path) == digest(
        read_ocisif(target).raw_manifest
    )
    assert target.read_bytes() == (tmp_path / "made").read_bytes()


def test_the_same_conversion_gives_the_same_bytes(tmp_path: Path) -> None:
    for form in ("oci-sif", "sif", "docker-archive", "oci-archive"):
        for name in ("one", "two"):
            target = Target(form=form, path=tmp_path / f"{form}-{name}")
            convert(make("kept", tmp_path, f"{form}-{name}-source"), target, tmp_path)
        assert (tmp_path / f"{form}-one").read_bytes() == (tmp_path / f"{form}-two").read_bytes()


@pytest.mark.parametrize("form", ["oci-sif", "kept", "sif"])
def test_golden_digest(form: str, tmp_path: Path) -> None:
    """The same on every machine; zstandard is pinned, because its bytes may change with it."""
    make(form, tmp_path)
    assert digest((tmp_path / "made").read_bytes()) == GOLDEN[form]


GOLDEN = {
    "oci-sif": "sha256:1184baa0979671add4efe8a49052bb65720fa9f902d36e0babcb19a53ea1931b",
    "kept": "sha256:2e90cfe1de1463c08a2f90cd4de74cdd74cae4fccf0f23cc94639fd56cf6fa0c",
    "sif": "sha256:47d3e2ad56c90148925d6c46e476407a01eec00f6cf9d99f825df1ba2b627205",
}


def test_nothing_is_overwritten_or_left_behind(tmp_path: Path) -> None:
    named = make("oci-sif", tmp_path)
    there = tmp_path / "there"
    there.write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    for form in ("oci-sif", "sif", "oci-archive", "docker-archive", "oci", "sandbox"):
        with pytest.raises(ExistsError):
            convert(named, Target(form=form, path=there), tmp_path)
    with pytest.raises(NotFoundError):
        convert(named, Target(form="oci", path=tmp_path / "no" / "where"), tmp_path)
    with pytest.raises(NotFoundError):
        convert(str(tmp_path / "nothing"), Target(form="oci", path=tmp_path / "new"), tmp_path)
    (tmp_path / "broken").write_bytes((tmp_path / "made").read_bytes()[:-70_000])
    for form in ("sif", "oci-archive", "docker-archive", "oci", "sandbox"):
        with pytest.raises(BackendError):
            convert(str(tmp_path / "broken"), Target(form=form, path=tmp_path / "new"), tmp_path)  # type: ignore[arg-type]
    (tmp_path / "broken").unlink()
    assert there.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_targets_are_named_as_sources_are() -> None:
    assert parse_target("x.sif").form == "oci-sif"
    assert parse_target("x.sif", native=True).form == "sif"
    assert parse_target("./x", sandbox=True).form == "sandbox"
    assert parse_target("oci:dir:v1") == Target(form="oci", path=parse_target("dir").path, tag="v1")
    assert parse_target("docker-archive:f.tar:a/b:1").tag == "a/b:1"
    for text in ("docker://x/y", "https://x/y", "docker-daemon:x"):
        with pytest.raises(UsageError):
            parse_target(text)
    with pytest.raises(UsageError):
        parse_target("oci:x", native=True)
