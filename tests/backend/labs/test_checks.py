"""Checks pass on the real thing, and fail on everything short of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.labs import recorder
from backend.labs.checks import Finding, Scene, Typed, parse_check
from backend.labs.progress import read_history
from tests.support import containers, sifs


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {**os.environ, "SINGULARITY_CONFIGDIR": str(tmp_path / "config")}
    return Scene(folder=folder, environment=environment)


def look(scene: Scene, **table: Any) -> Finding:
    return parse_check("here", table).look(scene)


def test_files(scene: Scene) -> None:
    assert look(scene, file="a.txt") == Finding(passed=False, text="a.txt is not there")
    assert look(scene, file="a.txt", absent=True).passed
    (scene.folder / "a.txt").write_text(" \n")
    assert look(scene, file="a.txt").text == "a.txt is empty"
    (scene.folder / "a.txt").write_text("one two\n")
    assert look(scene, file="a.txt").passed
    assert look(scene, file="a.txt", contains="two").passed
    assert not look(scene, file="a.txt", contains="three").passed
    assert not look(scene, file="a.txt", absent=True).passed
    (scene.folder / "folder").mkdir()
    assert not look(scene, file="folder").passed
    (scene.folder / "gone").symlink_to("nowhere")
    assert not look(scene, file="gone").passed
    assert not look(scene, file="gone", absent=True).passed


def test_what_a_command_prints_now(scene: Scene) -> None:
    (scene.folder / "v.txt").write_text("sifdeck version 0\n")
    found = look(scene, file="v.txt", like="sifdeck --version")
    assert found.text == "v.txt is not what `sifdeck --version` prints"
    version = subprocess.run(
        [Path(sys.executable).with_name("sifdeck"), "--version"], capture_output=True, check=True
    ).stdout
    (scene.folder / "v.txt").write_bytes(b"\n" + version)
    assert look(scene, file="v.txt", like="sifdeck --version").passed


def test_commands_that_are_run(scene: Scene) -> None:
    assert look(scene, run="sifdeck --version", output="version").passed
    assert not look(scene, run="sifdeck --version", output="vision").passed
    assert look(scene, run="sifdeck nonsense", exit=2).passed
    found = look(scene, run="sifdeck nonsense")
    assert (found.passed, "ends with 2, not 0" in found.text) == (False, True)


def test_sif_files(scene: Scene) -> None:
    config = {"User": "learner", "Entrypoint": ["/bin/x", "y"], "Labels": {"a": "b"}}
    name = "image.sif"
    assert look(scene, sif=name).text == "image.sif is not there"
    (scene.folder / name).write_text("no SIF")
    assert "is not readable" in look(scene, sif=name).text
    layers = [b"hsqs" + bytes(4096), b"hsqs" + bytes(8192)]
    containers.oci_sif(scene.folder / name, layers, config)
    assert look(scene, sif=name, format="oci-sif", objects=5, layers=2, user="learner").passed
    assert look(scene, sif=name, entrypoint=["/bin/x", "y"], labels={"a": "b"}).passed
    assert look(scene, sif=name, has=["OCI.Blob", "OCI.RootIndex"], lacks=["FS"]).passed
    for wrong in (
        {"format": "native"},
        {"objects": 4},
        {"layers": 1},
        {"user": ""},
        {"entrypoint": ["/bin/x"]},
        {"labels": {"a": "c"}},
        {"labels": {"c": "b"}},
        {"has": ["FS"]},
        {"lacks": ["OCI"]},
    ):
        assert not look(scene, sif=name, **wrong).passed, wrong


def test_native_sif_files(scene: Scene) -> None:
    (scene.folder / "n.sif").write_bytes(sifs.sif(sifs.blob(b"{}", kind=sifs.JSON)))
    assert look(scene, sif="n.sif", format="native", objects=1).passed
    found = look(scene, sif="n.sif", format="oci-sif")
    assert found.text == "n.sif is a native SIF"
    assert not look(scene, sif="n.sif", layers=1).passed


def test_same_and_different_files(scene: Scene) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (scene.folder / name).write_text(text)
    assert look(scene, same=["a", "b"]).passed
    assert not look(scene, same=["a", "b", "c"]).passed
    assert look(scene, same=["a", "c"], differ=True).passed
    assert not look(scene, same=["a", "b"], differ=True).passed
    assert look(scene, same=["a", "d"], differ=True) == Finding(passed=False, text="d is not there")


def test_digests(scene: Scene) -> None:
    import hashlib

    (scene.folder / "a").write_text("x")
    assert look(scene, digest="a", **{"in": "d"}).text == "d is not there"
    (scene.folder / "d").write_text("something else")
    assert not look(scene, digest="a", **{"in": "d"}).passed
    (scene.folder / "d").write_text(f"sha256:{hashlib.sha256(b'x').hexdigest()}\n")
    assert look(scene, digest="a", **{"in": "d"}).passed


def test_logins(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    path = tmp_path / "config/docker-config.json"
    assert not look(scene, login="127.0.0.1:5000").passed
    for text in ("nonsense", "[]", "{}", '{"auths": null}'):
        path.write_text(text)
        assert look(scene, login="127.0.0.1:5000", absent=True).passed
    for place in ("auths", "credHelpers"):
        path.write_text(json.dumps({place: {"127.0.0.1:5000": {"auth": "eDp5"}}}))
        assert look(scene, login="127.0.0.1:5000").passed
        assert not look(scene, login="127.0.0.1:5001").passed
        assert not look(scene, login="127.0.0.1:5000", absent=True).passed


def test_commands_that_were_typed(scene: Scene) -> None:
    typed = (
        Typed(argv=("run", "x.sif"), status=125),
        Typed(argv=("run", "--env", "A=b", "x.sif", "Ada", "7"), status=7),
    )
    later = Scene(folder=scene.folder, environment={}, typed=typed)
    assert not look(scene, did="run x.sif").passed
    assert not look(later, did="run x.sif").passed
    assert look(later, did="run x.sif Ada 7", exit=7).passed
    assert "ended with 7, not 0" in look(later, did="run Ada").text
    assert look(later, did="exec").text == "`sifdeck exec` has not been typed"
    assert look(later, did="exec", say="Type it.").text == "Type it."


def record(history: Path, *argv: str, program: str = "exit 3") -> int:
    command = [sys.executable, "-IS", recorder.__file__, str(history), "/bin/sh", "-c", program]
    return subprocess.run([*command, "--", *argv], check=False).returncode


def test_the_recorder_notes_arguments_and_end(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    assert read_history(history) == []
    assert record(history, "run", "a b\n", "--", "é") == 3
    assert record(history, program="kill -TERM $$") == 143
    with history.open("ab") as file:
        file.write(b'{"argv": 3}\n{\n\n')
    assert record(history, program="exit 0") == 0
    assert read_history(history) == [
        Typed(argv=("run", "a b\n", "--", "é"), status=3),
        Typed(argv=(), status=143),
        Typed(argv=(), status=0),
    ]
    assert history.stat().st_mode & 0o777 == 0o600


def test_the_recorder_keeps_no_password(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    for argv in (
        ("registry", "login", "-p", "secret", "x"),
        ("registry", "login", "--password", "secret", "x"),
        ("registry", "login", "--password=secret", "x"),
        ("registry", "login", "-psecret", "x"),
        ("pull", "--docker-password", "secret", "x"),
    ):
        record(history, *argv)
    assert "secret" not in history.read_text()
    assert all(typed.argv[-1] == "x" for typed in read_history(history))
