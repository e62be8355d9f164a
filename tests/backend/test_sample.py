"""Images of this machine's own tools: what ldd says, what a shell in the image does."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.elf import is_elf, read_elf
from backend.errors import FormatError, NotFoundError
from backend.oci.image import parse_config, parse_manifest
from backend.sample import Member, SampleImage, copy_programs, make_samples, tar


@pytest.fixture(scope="module")
def samples() -> dict[str, SampleImage]:
    return make_samples()


def layers(made: SampleImage) -> list[tarfile.TarFile]:
    manifest = parse_manifest(made.manifest)
    return [
        tarfile.open(fileobj=io.BytesIO(gzip.decompress(made.blobs[layer.digest])))
        for layer in manifest.layers
    ]


def unpack(made: SampleImage, folder: Path) -> None:
    """Unpack with whiteouts as a runtime would, with the standard library."""
    for archive in layers(made):
        members = archive.getmembers()
        for member in members:
            parent, _, name = member.name.rpartition("/")
            if name == ".wh..wh..opq":
                for old in (folder / parent).iterdir():
                    old.unlink()
            elif name.startswith(".wh."):
                (folder / parent / name.removeprefix(".wh.")).unlink()
        plain = [one for one in members if not Path(one.name).name.startswith(".wh.")]
        archive.extraction_filter = lambda member, _path: member  # 3.11.2 has no argument for it
        archive.extractall(folder, members=plain)  # noqa: S202  (images of our own making)


def test_the_images_are_right(samples: dict[str, SampleImage]) -> None:
    hello = samples["hello:1.0"]
    manifest = parse_manifest(hello.manifest)
    config = parse_config(hello.blobs[manifest.config.digest])
    assert len(manifest.layers) == len(config.diff_ids) == len(config.history) == 4
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        import hashlib

        plain = gzip.decompress(hello.blobs[layer.digest])
        assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == diff_id
        assert layer.size == len(hello.blobs[layer.digest])
    assert config.entrypoint == ("/usr/local/bin/greet",)
    assert (config.user, config.working_dir) == ("learner", "/home/learner")
    assert config.labels["org.opencontainers.image.version"] == "1.0"
    assert samples["hello:latest"].digest == samples["hello:2.0"].digest != hello.digest
    shell = parse_manifest(samples["shell:1.0"].manifest)
    assert shell.layers == manifest.layers[:1]


def test_two_users_and_deletions(samples: dict[str, SampleImage]) -> None:
    base, *_, last = layers(samples["hello:1.0"])
    passwd = base.extractfile("etc/passwd")
    assert passwd
    assert [line.split(b":")[0] for line in passwd.read().splitlines()] == [b"root", b"learner"]
    assert {"srv/notes/.wh.draft.txt", "srv/cache/.wh..wh..opq"} <= set(last.getnames())


def test_the_same_machine_makes_the_same_bytes(samples: dict[str, SampleImage]) -> None:
    assert make_samples() == samples


def test_the_tools_run_inside(samples: dict[str, SampleImage], tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("no root: chroot")
    unpack(samples["hello:1.0"], tmp_path)

    def inside(*argv: str) -> str:
        command = ["chroot", str(tmp_path), *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert inside("/usr/local/bin/greet", "Ada").splitlines()[0] == "Hello, Ada!"
    assert inside("/bin/sh", "-c", "id -un; ls /srv/cache /srv/notes").split() == [
        *("root", "/srv/cache:", "new", "/srv/notes:", "version.txt")
    ]
    for tool in ("sort", "sha256sum", "stat", "cp"):
        if shutil.which(tool):
            assert tool in inside(f"/usr/bin/{tool}", "--help")


@pytest.mark.parametrize("name", ["ls", "cp", "sort", "sh"])
def test_the_libraries_are_those_that_ldd_names(name: str) -> None:
    program = shutil.which(name)
    if program is None or shutil.which("ldd") is None:
        pytest.skip(f"no {name}, or no ldd")
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    expected = {line.split()[0].rpartition("/")[2] for line in said.splitlines()}
    copied = {member.name.rpartition("/")[2] for member in copy_programs(["sh", name])}
    assert {lib for lib in expected if not lib.startswith("linux-")} <= copied


def test_library_folders_that_only_this_machine_knows() -> None:
    # The image's loader has no ld.so.conf: whatever the system's folders hold goes together.
    members = copy_programs(["sh", "ls", "cp", "sort"])
    libraries = {
        member.name.rpartition("/")[0]
        for member in members
        if ".so" in member.name and "ld-" not in member.name
    }
    assert len(libraries) == 1


def test_one_program_of_many_names_is_copied_once(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox")
    shutil.copy(busybox, tmp_path / "busybox")
    for name in ("sh", "ls"):
        (tmp_path / name).symlink_to("busybox")
    (tmp_path / "cat").write_text("#!/bin/sh\n")
    (tmp_path / "cat").chmod(0o755)
    made = {
        member.name: member for member in copy_programs(["sh", "ls", "cat"], path=str(tmp_path))
    }
    assert set(made) == {"usr", "usr/bin", "usr/bin/busybox", "usr/bin/sh", "usr/bin/ls"}
    assert made["usr/bin/ls"].link == "busybox"


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755)


def copied_from(folder: Path, *names: str) -> dict[str, Member]:
    """Return what is copied of programs in a folder, by its path below the test's folder."""
    top = str(folder.parent).lstrip("/") + "/"
    return {
        member.name.removeprefix(top): member
        for member in copy_programs(names, path=str(folder))
        if member.kind != "folder"
    }


def test_a_machine_with_each_package_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As NixOS: loader and libraries are found by their whole paths, and stay there."""
    loader, libc, other = (tmp_path / f"store/{name}" for name in ("glibc/ld.so", "glibc", "x"))
    plain = small_elf(loader="", run_path="", needed=("ld.so", "ld.so"))
    library = small_elf(loader="", run_path=str(libc), needed=("libc.so.6", "libc.so.6"))
    put(loader, plain)
    put(libc / "libc.so.6", plain)
    put(other / "lib/libx.so.1", library)
    shell = small_elf(loader=str(loader), run_path=f"$ORIGIN/../lib:{libc}")
    put(other / "bin/bash", shell)
    (tmp_path / "sw").mkdir()
    (tmp_path / "sw/sh").symlink_to("../link")
    (tmp_path / "link").symlink_to(other / "bin/bash")
    made = copied_from(tmp_path / "sw", "sh")
    assert set(made) == {
        *("store/glibc/ld.so", "store/glibc/libc.so.6", "store/x/lib/libx.so.1"),
        *("usr/bin/bash", "usr/bin/sh"),
    }
    assert made["usr/bin/sh"].link == "bash"
    assert made["usr/bin/bash"].data == shell


def test_a_machine_with_musl(tmp_path: Path) -> None:
    """The C library is the loader, by another name, and one program has many names."""
    loader = tmp_path / "lib/ld-musl-test.so.1"
    itself = (loader.name, loader.name)
    put(loader, small_elf(loader="", run_path="", needed=itself))
    (tmp_path / "lib/libc.musl-test.so.1").symlink_to(loader.name)
    name = "libc.musl-test.so.1"
    busybox = small_elf(loader=str(loader), run_path="$ORIGIN/../lib", needed=(name, name))
    put(tmp_path / "bin/busybox", busybox)
    (tmp_path / "bin/sh").symlink_to("busybox")
    (tmp_path / "bin/cat").symlink_to("sh")
    made = copied_from(tmp_path / "bin", "sh", "cat", "id")
    assert set(made) == {
        *("lib/ld-musl-test.so.1", f"lib/{name}"),
        *("usr/bin/busybox", "usr/bin/sh", "usr/bin/cat"),
    }
    assert made["usr/bin/cat"].link == made["usr/bin/sh"].link == "busybox"
    assert made[f"lib/{name}"].data == loader.read_bytes()


def test_programs_that_lack_a_library_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "ld.so", small_elf(loader="", run_path="", needed=("", "")))
    alone = small_elf(loader=str(tmp_path / "ld.so"), run_path="", needed=("ld.so", "ld.so"))
    put(tmp_path / "bin/sh", alone)
    put(tmp_path / "bin/cat", small_elf(loader=str(tmp_path / "ld.so")))  # libx.so.1 is nowhere
    put(tmp_path / "bin/id", small_elf(loader="/nowhere/ld.so"))
    assert set(copied_from(tmp_path / "bin", "sh", "cat", "id")) == {"ld.so", "usr/bin/sh"}


def test_a_machine_without_a_shell_is_told(tmp_path: Path) -> None:
    (tmp_path / "sh").write_bytes(b"\x7fELF but not really")
    (tmp_path / "sh").chmod(0o755)
    with pytest.raises(NotFoundError, match="no shell"):
        copy_programs(["sh"], path=str(tmp_path))


def test_layers_are_read_as_they_were_written() -> None:
    deep = "/".join(["folder" * 3] * 8) + "/file"
    members = [
        Member(name="a", kind="folder", mode=0o1777),
        Member(name="a/b", data=b"x" * 513, mode=0o4755, uid=1000),
        Member(name="a/c", kind="link", link="../b"),
        Member(name=deep, data=b"deep"),
    ]
    with tarfile.open(fileobj=io.BytesIO(tar(members))) as archive:
        found = {member.name: member for member in archive.getmembers()}
        data = archive.extractfile("a/b")
        assert data
        assert data.read() == b"x" * 513
    assert (found["a"].isdir(), found["a"].mode) == (True, 0o1777)
    assert (found["a/b"].mode, found["a/b"].uid, found["a/b"].gid) == (0o4755, 1000, 1000)
    assert found["a/c"].linkname == "../b"
    assert deep in found
    with pytest.raises(FormatError):
        tar([Member(name="x" * 101)])


def test_elf_against_readelf() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    for program in ("/bin/ls", "/bin/sh"):
        said = subprocess.run(
            ["readelf", "-d", "-l", program], capture_output=True, text=True, check=True
        ).stdout
        found = read_elf(Path(program).read_bytes())
        needed = [line for line in said.splitlines() if "(NEEDED)" in line]
        assert list(found.needed) == [line.split("[")[1].rstrip("]") for line in needed]
        assert f"interpreter: {found.interpreter}]" in said


def small_elf(
    *,
    wide: bool = True,
    little: bool = True,
    loader: str = "/lib/ld-test.so",
    run_path: str = "$ORIGIN/../lib:/opt/lib",
    needed: tuple[str, str] = ("libx.so.1", "libc.so.6"),
) -> bytes:
    """Build an ELF file of three segments from the specification."""
    order = "<" if little else ">"
    texts = [text.encode() + b"\0" for text in (needed[0], run_path, needed[1])]
    places = [1 + sum(map(len, texts[:number])) for number in range(3)]
    strings = b"\0" + b"".join(texts)
    named = loader.encode() + b"\0"
    head, entry = (64, 56) if wide else (52, 32)
    base = 0x1000
    at_loader = head + 3 * entry
    at_strings = at_loader + len(named)
    at_dynamic = at_strings + len(strings)
    tags = list(zip((1, 29, 1), places, strict=True))
    tags += [(5, base + at_strings), (0, 0), (1, 1)]
    dynamic = b"".join(struct.pack(f"{order}{'qQ' if wide else 'iI'}", *tag) for tag in tags)
    size = at_dynamic + len(dynamic)
    segments = [(1, 0, base, size), (2, at_dynamic, base + at_dynamic, len(dynamic))]
    segments.append((3, at_loader, base + at_loader, len(named)))
    headers = b"".join(
        struct.pack(f"{order}IIQQQQQQ", kind, 4, offset, address, address, length, length, 1)
        if wide
        else struct.pack(f"{order}IIIIIIII", kind, offset, address, address, length, length, 4, 1)
        for kind, offset, address, length in segments
    )
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    word = "Q" if wide else "I"
    rest = struct.pack(
        f"{order}HHI{word * 3}IHHHHHH", 3, 62, 1, 0, head, 0, 0, head, entry, 3, 0, 0, 0
    )
    return ident + rest + headers + named + strings + dynamic


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("little", [True, False])
def test_elf_of_every_class_and_order(wide: bool, little: bool) -> None:
    found = read_elf(small_elf(wide=wide, little=little))
    assert found.interpreter == "/lib/ld-test.so"
    assert found.needed == ("libx.so.1", "libc.so.6")
    assert found.run_path == ("$ORIGIN/../lib", "/opt/lib")
    assert found.kind == (2 if wide else 1, 1 if little else 2, 62)


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
def test_damaged_elf_files_are_an_error(noise: bytes, place: int, wide: bool) -> None:
    good = small_elf(wide=wide, little=True)
    for data in (noise, b"\x7fELF\x02\x01" + noise, good[:place], good[:place] + noise):
        try:
            read_elf(data)
        except FormatError:
            continue
        assert is_elf(data)
