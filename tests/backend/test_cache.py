"""Listing and cleaning the cache, while others use it."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from app.cli.main import cli
from backend.cache import KINDS, beyond, clean_cache, hold_cache, list_cache, parse_size, unused_for
from backend.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

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
    assert beyond(entries, total) == []
    assert beyond(entries, total - 1) == entries[:1]
    assert beyond(entries, 0) == entries
    (cache / "scratch" / "four").touch()
    assert [entry.kind for entry in beyond(list_cache(cache), 0)] == list(KINDS[:-1])


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
        assert cleaned() == ["blob", "sif", "rootfs", "scratch"]
    for name, kind in ((f"partial/sha256-{HEX}", "partial"), ("oci-sif/one.oci.lock", "oci-sif")):
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
