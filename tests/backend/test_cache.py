"""Listing and cleaning the cache, while others use it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from app.cli.main import cli, main
from backend.cache import (
    KINDS,
    clean_cache,
    hold_cache,
    keep_within,
    list_cache,
    parse_size,
    unused_for,
)
from backend.errors import UsageError
from tests.support.images import Entry, image, layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

HEX = "ab" * 32
FILES = {
    f"blobs/sha256/{HEX}": ("blob", 9),
    f"partial/sha256-{HEX}": ("partial", 8),
    "oci-sif/one.oci.sif": ("oci-sif", 7),
    "downloads/two.sif": ("sif", 6),
    "rootfs/three/etc/passwd": ("rootfs", 5),
    "scratch/four": ("scratch", 4),
    "tags/five": ("", 3),
    "oci-sif/one.oci.lock": ("", 2),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one thing of each kind, each a day younger than the one before."""
    root = tmp_path / "cache"
    for name, (_, days) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10_000)
        used = time.time() - days * 86_400 - 60
        os.utime(path, (used, used))
        if name.startswith("rootfs"):
            os.utime(root / "rootfs/three", (used, used))
    monkeypatch.setenv("SIFDECK_CACHE_DIR", str(root))
    return root


def run(*argv: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["cache", *argv], catch_exceptions=True)
    return result.exit_code, result.stdout, result.stderr


def test_everything_is_listed_oldest_first(cache: Path) -> None:
    entries = list_cache(cache)
    assert [entry.kind for entry in entries] == list(KINDS)
    assert entries[0].name == f"sha256:{HEX}"
    assert all(entry.size >= 10_000 for entry in entries)
    assert [entry.kind for entry in list_cache(cache, ["sif"])] == ["sif"]
    assert list_cache(cache / "nothing") == []


def test_what_was_not_used_for_days(cache: Path) -> None:
    kinds = [entry.kind for entry in unused_for(list_cache(cache), 6.5)]
    assert kinds == ["blob", "partial", "oci-sif"]
    assert len(unused_for(list_cache(cache), 0)) == len(KINDS)


def test_least_recently_used_go_first(cache: Path) -> None:
    entries = list_cache(cache)
    total = sum(entry.size for entry in entries)
    assert keep_within(cache, total).removed == ()
    assert keep_within(cache, total - 1).removed == (entries[0],)
    assert list_cache(cache) == entries[1:]
    # Downloads are had again; an image may be about to be opened.
    (cache / "oci-sif" / "one.oci.sif").touch()
    (cache / f"partial/sha256-{HEX}").touch()
    gone = [entry.kind for entry in keep_within(cache, 0).removed]
    assert gone == ["sif", "rootfs", "scratch", "partial"]
    assert [entry.kind for entry in list_cache(cache)] == ["oci-sif"]


def test_what_is_in_use_stays_and_others_go_instead(cache: Path) -> None:
    entries = list_cache(cache)
    total = sum(entry.size for entry in entries)
    with hold_cache(cache):  # the blob is the oldest, but a pull may be reading it
        done = keep_within(cache, total - 1)
    assert [entry.kind for entry in done.kept] == ["blob"]
    assert [entry.kind for entry in done.removed] == ["partial"]


@pytest.mark.parametrize(
    "name", [f"blobs/sha256/{HEX}", "oci-sif/one.oci.sif", "downloads/two.sif"]
)
def test_a_file_that_another_process_has_open_stays(name: str, cache: Path) -> None:
    """As squashfuse has the image that a container runs on."""
    script = 'exec 3<"$0"; echo open; read line'
    reader = subprocess.Popen(
        ["sh", "-c", script, str(cache / name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"open\n"
        assert [str(entry.path) for entry in keep_within(cache, 0).kept] == [str(cache / name)]
        assert [str(entry.path) for entry in list_cache(cache)] == [str(cache / name)]
        reader.communicate()
    assert keep_within(cache, 0).kept == ()
    assert list_cache(cache) == []


def test_an_unpacked_layer_is_as_old_as_its_last_start(cache: Path) -> None:
    lock = cache / "rootfs" / ".three.lock"
    lock.touch()
    assert [entry.kind for entry in list_cache(cache)][-1] == "rootfs"
    used = time.time() - 3600
    os.utime(lock, (used, used))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert [entry.kind for entry in keep_within(cache, 0).kept] == ["rootfs"]
    keep_within(cache, 0)
    assert list((cache / "rootfs").iterdir()) == []


@pytest.mark.registry
def test_a_pull_keeps_to_the_limit_of_the_settings(
    cache: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIFDECK_CONFIG_DIR", str(tmp_path))
    (tmp_path / "config.toml").write_text('cache_limit = "40k"')
    made = image([layer(Entry(name="noise", data=os.urandom(20_000)))])
    registry.push(made, "cache/limit", "1")
    source = f"docker://{registry.host}/cache/limit:1"
    assert main(["pull", "--no-https", str(tmp_path / "x.sif"), source]) == 0
    entries = list_cache(cache)
    assert sum(entry.size for entry in entries) <= 40 << 10
    assert entries[-1].kind == "blob"  # what came last stays
    assert "sif" not in {entry.kind for entry in entries} - {"blob", "rootfs", "scratch"}
    (tmp_path / "config.toml").write_text('cache_limit = "much"')
    assert main(["pull", "-F", "--no-https", str(tmp_path / "x.sif"), source]) == 2


def test_cleaning_removes_and_a_dry_run_does_not(cache: Path) -> None:
    entries = list_cache(cache)
    told: list[str] = []
    clean_cache(cache, entries, dry_run=True, on_removed=lambda entry: told.append(entry.kind))
    assert told == list(KINDS)
    assert list_cache(cache) == entries
    assert clean_cache(cache, entries).removed == tuple(entries)
    assert list_cache(cache) == []
    assert (cache / "tags/five").exists()


def test_what_others_work_with_stays(cache: Path) -> None:
    def cleaned() -> list[str]:
        return [entry.kind for entry in clean_cache(cache, list_cache(cache), dry_run=True).kept]

    assert cleaned() == []
    with hold_cache(cache):
        assert cleaned() == ["blob", "sif", "scratch"]
    (cache / "rootfs" / ".three.lock").touch()
    for name, kind in (
        (f"partial/sha256-{HEX}", "partial"),
        ("oci-sif/one.oci.lock", "oci-sif"),
        ("rootfs/.three.lock", "rootfs"),
    ):
        with (cache / name).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert cleaned() == [kind]
    assert cleaned() == []


def test_sizes_are_parsed() -> None:
    assert parse_size("1000") == 1000
    assert parse_size("20G") == parse_size("20 GiB") == 20 << 30
    assert parse_size("1.5k") == 1536
    for text in ("", "G", "-1", "1X", "1e9"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_the_list_is_singularity_s(cache: Path) -> None:
    status, out, _ = run("list", "-v")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"{'NAME':<24} {'DATE CREATED':<22} {'SIZE':<16} TYPE"
    assert lines[1].startswith(f"{'sha256:' + HEX[:15]:<24} 2")
    assert lines[1].endswith(" blob")
    assert lines[-2].startswith("There are 4 container file(s) using ")
    assert " and 2 oci blob file(s) using " in lines[-2]
    assert lines[-1].startswith("Total space used: ")
    assert (cache / "scratch/four").exists()


@pytest.mark.usefixtures("cache")
def test_the_command_cleans() -> None:
    status, _, err = run("clean", "--days", "6.5", "-n")
    assert status == 0
    assert err.splitlines()[0] == "User requested a dry run. Not actually deleting any data!"
    assert err.count("INFO:    Removing") == 3
    assert run("clean")[0] == 2  # no terminal to ask on
    assert "Removing sif cache entry: two.sif" in run("clean", "-f", "-T", "sif")[2]
    assert run("clean", "-f", "--size", "0")[2].count("Removing") == len(KINDS) - 1
    assert "No cached files to remove" in run("clean", "-f")[2]
