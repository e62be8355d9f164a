"""``sifdeck inspect``."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from app.cli.main import main
from app.inspection import inspect_file as pages_of
from backend.sif.inspection import inspect_file
from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Source, convert_documents
from tests.support.images import Entry, image, layer
from tests.support.sifs import DEFINITION, JSON, SIGNATURE, Object, partition, sif
from tests.support.squashed import write_sif

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "Env": ["PATH=/bin", "EVIL=\x1b]0;gotcha\x07\u202e"],
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["echo 'a b'"],
    "WorkingDir": "/srv",
    "User": "1000:1000",
    "Labels": {"b": "two", "a": "one\n\x1b[2J"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"]},
}


def squashfs(folder: Path, **files: str) -> bytes:
    if shutil.which("mksquashfs") is None:
        pytest.skip("no mksquashfs")
    tree = folder / "tree"
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tree.mkdir(exist_ok=True)
    target = folder / "made.sqfs"
    argv = ["mksquashfs", str(tree), str(target), "-noappend", "-quiet", "-no-progress"]
    subprocess.run([*argv, "-comp", "zstd"], check=True, stdout=subprocess.DEVNULL)
    return target.read_bytes()


@pytest.fixture
def oci_sif(tmp_path: Path) -> Path:
    made = image([layer(Entry(name="a")), layer(Entry(name="b"))], config=CONFIG)
    source = Source(
        raw_manifest=made.manifest,
        raw_config=made.blobs[json.loads(made.manifest)["config"]["digest"]],
        reference="docker.io/library/app:1",
    )
    target = tmp_path / "app_1.oci.sif"
    with OciSifWriter(target, layer_count=1) as writer:
        with writer.layer() as out:
            out.write(squashfs(tmp_path, hello="hi"))
        writer.finish(lambda layers: convert_documents(source, layers))
    return target


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return json.loads(run(capsys, *arguments))


def test_overview(oci_sif: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, oci_sif)
    for line in (
        "Format:        OCI-SIF",
        "Platform:      linux/amd64",
        "Source:        docker.io/library/app:1",
        "Entrypoint:    /bin/sh -c",
        """Cmd:           'echo '"'"'a b'"'"''""",
        "User:          1000:1000",
        "Working dir:   /srv",
        "Ports:         80/tcp",
        "Volumes:       /data",
        "Stop signal:   SIGINT",
        "  PATH=/bin",
        "  a=one\\n\\x1b[2J",
        "  b=two",
    ):
        assert f"{line}\n" in text
    assert "squashfs zstd, blocks of 128.0 KiB, 2 inodes" in text
    assert "oci-sif created from " in text


def test_nothing_hostile_reaches_the_terminal(
    oci_sif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ([], ["-l"], ["-e"], ["-r"], ["-d"], ["--all"], ["--json"], ["-l", "-j"]):
        text = run(capsys, *options, oci_sif)
        assert text
        assert all(letter == "\n" or letter.isprintable() for letter in text)


def test_json(oci_sif: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "--json", oci_sif)
    assert found["config"] == CONFIG
    assert found["labels"] == CONFIG["Labels"]
    assert (found["kind"], found["platform"]) == ("oci-sif", "linux/amd64")
    (stored,) = found["layers"]
    assert (stored["filesystem"], stored["compression"], stored["offset"]) == (
        "squashfs",
        "zstd",
        12288,
    )
    assert stored["sources"] == [one["digest"] for one in found["provenance"]["layers"]]
    assert len(stored["sources"]) == 2
    assert found["provenance"]["reference"] == "docker.io/library/app:1"
    assert [entry["empty_layer"] for entry in found["history"]] == [True, True, False]
    assert found["data"]["attributes"]["labels"] == CONFIG["Labels"]


def test_options_of_singularity(oci_sif: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "-l", oci_sif) == "a: one\\n\\x1b[2J\nb: two\n"
    assert run(capsys, "--environment", oci_sif).startswith("PATH=/bin\nEVIL=")
    assert run(capsys, "--runscript", oci_sif) == """/bin/sh -c 'echo '"'"'a b'"'"''\n"""
    assert run(capsys, "-d", oci_sif).startswith("layer 0\nlayer 1\n")
    assert run_json(capsys, "-l", "-j", oci_sif) == {
        "data": {"attributes": {"labels": CONFIG["Labels"]}},
        "type": "container",
    }
    assert set(run_json(capsys, "--all", oci_sif)["data"]["attributes"]) == {
        "labels",
        "environment",
        "runscript",
        "deffile",
    }


METADATA = {
    "data": {
        "attributes": {
            "labels": {"org.label-schema.usage.singularity.deffile.from": "ubuntu", "x": "y"},
            "runscript": "#!/bin/sh\nexec true\n",
            "environment": {"/.singularity.d/env/10-docker2singularity.sh": "export A=b\n"},
        }
    },
    "type": "container",
}


def native(*objects: Object) -> bytes:
    return sif(
        *objects,
        launch=b"#!/usr/bin/env run-singularity\n",
        arch=b"04\0",
        uuid=bytes(range(16)),
        created=1_593_475_316,
    )


def test_native_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(
        native(
            Object(kind=DEFINITION, data=b"bootstrap: docker\nfrom: ubuntu\n\n"),
            Object(kind=JSON, data=json.dumps(METADATA).encode(), name=b"inspect-metadata.json"),
            Object(kind=JSON, data=b'{"User":"me","Cmd":["sh"]}', name=b"oci-config.json"),
            partition(squashfs(tmp_path), arch=b"04\0", gap=5),
            Object(kind=SIGNATURE, data=b"s", extra=b"\1", group=0, link=0xF0000001),
        )
    )
    text = run(capsys, path)
    for line in (
        "Format:        native SIF",
        "Platform:      linux/arm64",
        "Created:       2020-06-30T00:01:56Z",
        "Source:        ubuntu",
        "Signatures:    1",
        "User:          me",
        "Cmd:           sh",
        "  x=y",
    ):
        assert f"{line}\n" in text
    assert run(capsys, "-d", path) == "bootstrap: docker\nfrom: ubuntu\n"
    assert run(capsys, "-r", path) == "#!/bin/sh\nexec true\n"
    assert run(capsys, "-e", path) == (
        "=== /.singularity.d/env/10-docker2singularity.sh ===\nexport A=b\n"
    )
    assert run(capsys, "-t", path) == ""
    pages = pages_of(path)
    for row in ("created    2020-06-30T00:01:56Z", "source     ubuntu", 'cmd        ["sh"]'):
        assert row in pages["Overview"]
    assert pages["Definition"] == ["bootstrap: docker", "from: ubuntu", ""]
    assert pages["Runscript"] == ["#!/bin/sh", "exec true"]
    assert "x: y" in pages["Labels"]
    assert pages["Env"][:2] == ["# /.singularity.d/env/10-docker2singularity.sh", "export A=b"]


def test_native_image_without_metadata(tmp_path: Path) -> None:
    files = {
        ".singularity.d/labels.json": '{"l":"1","number":3}',
        ".singularity.d/runscript": "#!/bin/sh\n",
        ".singularity.d/env/90-environment.sh": "export B=c\n",
        ".singularity.d/env/README": "no script",
        ".singularity.d/Singularity": "bootstrap: library\n",
    }
    path = tmp_path / "x.sif"
    path.write_bytes(native(partition(squashfs(tmp_path, **files))))
    found = inspect_file(path)
    assert found.labels == {"l": "1"}
    assert found.attributes["runscript"] == "#!/bin/sh\n"
    assert found.attributes["deffile"] == "bootstrap: library\n"
    assert found.attributes["environment"] == {
        "/.singularity.d/env/90-environment.sh": "export B=c\n"
    }


def test_damaged_layer_is_still_described(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(native(partition(b"no squashfs"), partition(b"e", fs=2, kind=4)))
    assert [(one.filesystem, one.compression) for one in inspect_file(path).layers] == [
        ("squashfs", "damaged"),
        ("ext3", ""),
    ]


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [(None, 11, "there is no file"), (b"x" * 500, 1, "not a SIF file")],
)
def test_what_is_no_image(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: bytes | None,
    status: int,
    message: str,
) -> None:
    path = tmp_path / "x.sif"
    if data is not None:
        path.write_bytes(data)
    assert main(["inspect", str(path)]) == status
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "document", [b"[]", b"{", b'{"data":3}', b'{"data":{"attributes":[]}}', b"\xff"]
)
def test_broken_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: bytes
) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(native(Object(kind=JSON, data=document, name=b"inspect-metadata.json")))
    assert main(["inspect", str(path)]) == 1
    assert "ERROR:   " in capsys.readouterr().err


SCIF = {
    "scif/apps/one/scif/runscript": "#!/bin/sh\necho one\n",
    "scif/apps/one/scif/runscript.help": "The first\x1b[2J.\n",
    "scif/apps/one/scif/env/01-base.sh": "A=1\n",
    "scif/apps/one/scif/env/note.txt": "no script",
    "scif/apps/one/scif/labels.json": '{"kind": "first"}',
    "scif/apps/two/bin/tool": "x",
    "scif/apps/file": "no app",
}


@pytest.fixture(params=["oci-sif", "sif", "recorded"])
def with_apps(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image with two apps, told by its files or by what its builder recorded."""
    if request.param == "oci-sif":
        return write_sif(
            tmp_path / "x.sif", [Entry(name=k, data=v.encode()) for k, v in SCIF.items()]
        )
    path = tmp_path / "native.sif"
    recorded: dict[str, Any] = json.loads(json.dumps(METADATA))
    tree = squashfs(tmp_path, **SCIF)
    if request.param == "recorded":
        tree = b"hsqs nothing that anybody could read"
        recorded["data"]["attributes"]["apps"] = {
            "one": {
                "runscript": SCIF["scif/apps/one/scif/runscript"],
                "helpfile": SCIF["scif/apps/one/scif/runscript.help"],
                "environment": {"/scif/apps/one/scif/env/01-base.sh": "A=1\n"},
                "labels": {"kind": "first"},
            },
            "two": {},
        }
    metadata = Object(kind=JSON, data=json.dumps(recorded).encode(), name=b"inspect-metadata.json")
    path.write_bytes(native(metadata, partition(tree, arch=b"02\0")))
    return path


def test_apps(with_apps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--list-apps", with_apps) == "one\ntwo\n"
    listed = run_json(capsys, "--list-apps", "--json", with_apps)
    assert listed["data"]["attributes"] == {"apps": {"one": {}, "two": {}}}
    assert run(capsys, "--app", "one", with_apps) == "kind: first\n"
    assert run(capsys, "--app", "one", "-r", with_apps) == "#!/bin/sh\necho one\n"
    assert run(capsys, "--app", "one", "-H", with_apps) == "The first\\x1b[2J.\n"
    environment = run(capsys, "--app", "one", "-e", with_apps)
    assert environment == "=== /scif/apps/one/scif/env/01-base.sh ===\nA=1\n"
    found = run_json(capsys, "--app", "one", "-l", "--json", with_apps)
    assert found["data"]["attributes"]["apps"] == {"one": {"labels": {"kind": "first"}}}
    everything = run_json(capsys, "--all", with_apps)["data"]["attributes"]
    assert set(everything["apps"]["one"]) == {"runscript", "helpfile", "environment", "labels"}
    assert main(["inspect", "--app", "three", str(with_apps)]) == 11
    error = capsys.readouterr().err
    assert "the image has no app 'three'" in error
    assert "it has 'one', 'two'" in error


def test_an_image_without_apps(oci_sif: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--list-apps", oci_sif) == ""
    assert main(["inspect", "--app", "x", str(oci_sif)]) == 11
    assert "it has no apps" in capsys.readouterr().err
