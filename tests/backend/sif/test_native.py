"""Native SIF images that we write."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from app.cli.main import main
from backend.assembly import assembly_of, write_native_image
from backend.errors import UsageError
from backend.events import ignore
from backend.oci.image import ImageConfig
from backend.oci.platform import Platform
from backend.sif.contents import ImageTree
from backend.sif.file import SifFile
from backend.sif.inspection import inspect_file
from backend.sif.ocisif import read_ocisif
from backend.sif.provenance import Source
from backend.sif.scripts import ACTIONS, ENVIRONMENT, image_environment, quote, runscript
from backend.sif.text import header_text, list_text
from backend.squashfs.compression import Compression
from tests.support.images import Entry, directory, image, layer, symlink
from tests.support.squashed import write_sif

if TYPE_CHECKING:
    from pathlib import Path

    from backend.sif.ocisifwriter import WrittenImage
    from tests.support.registry import Registry

CONFIG = {
    "Env": ["PATH=/opt/bin:/bin", "A=it's $HOME", "bad-name=x", "EMPTY"],
    "Entrypoint": ["/bin/echo", "a b"],
    "Cmd": ["$(id)", "c'd"],
    "Labels": {"mine": "yes"},
}
LAYERS = [
    [
        directory("etc", 0o711, uid=7),
        Entry(name="etc/hosts", data=b"127.0.0.1 build-host\n"),
        Entry(name="etc/passwd", data=b"root:x:0:0::/:/bin/sh\n"),
        directory("tmp", 0o1777),
        directory(".singularity.d"),
        Entry(name=".singularity.d/runscript", data=b"theirs"),
    ],
    [Entry(name="environment", data=b"a file of the image")],
]


def write(target: Path, *, overwrite: bool = False, **config: object) -> WrittenImage:
    made = image([layer(*entries) for entries in LAYERS], config=CONFIG | config, compress="")
    blobs = made.blobs
    manifest = json.loads(made.manifest)
    source = Source(
        raw_manifest=made.manifest,
        raw_config=blobs[manifest["config"]["digest"]],
        reference="docker://docker.io/library/app:1",
    )
    paths = []
    for one in manifest["layers"]:
        path = target.parent / one["digest"].replace(":", "-")
        path.write_bytes(blobs[one["digest"]])
        paths.append(path)
    return write_native_image(
        assembly_of(source, lambda index: paths[index].open("rb")),
        target,
        compression=Compression(),
        overwrite=overwrite,
        report=ignore,
    )


def test_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    write(path)
    with SifFile(path) as file:
        lines = list_text(file.descriptors).splitlines()[3:]
        assert [line.rpartition("|")[2] for line in lines] == [
            "Def.FILE",
            "JSON.Generic",
            "JSON.Generic",
            "FS (Squashfs/*System/amd64)",
        ]
        assert [one.name for one in file.descriptors] == [
            b"",
            b"inspect-metadata.json",
            b"oci-config.json",
            b"",
        ]
        assert file.descriptors[3].offset % 4096 == 0
        definition, metadata, config, _ = file.descriptors
        assert file.read(definition, limit=1000) == (
            b"bootstrap: docker\nfrom: docker.io/library/app:1\n\n"
        )
        assert json.loads(file.read(config, limit=1000)) == CONFIG
        attributes = json.loads(file.read(metadata, limit=100_000))["data"]["attributes"]
        assert attributes["labels"]["mine"] == "yes"
        assert attributes["labels"]["org.label-schema.build-date"] == "Monday_6_May_2024_7:8:9_UTC"
        text = header_text(file.header)
    assert "Launch Script:        #!/usr/bin/env run-singularity\n" in text
    assert "Primary Architecture: amd64\n" in text
    assert "Created At:           2024-05-06 07:08:09 +0000 UTC\n" in text
    assert "Descriptors Total:    48\n" in text


def test_same_source_gives_the_same_file(tmp_path: Path) -> None:
    write(tmp_path / "x.sif")
    write(tmp_path / "y.sif")
    assert (tmp_path / "x.sif").read_bytes() == (tmp_path / "y.sif").read_bytes()


def test_file_system(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    write(path)
    with ImageTree(path) as tree:
        # What the image has stays as it is, but for the two files that the host's replace.
        etc = tree.need("etc")[1].node
        assert (etc.mode, etc.uid) == (0o711, 7)
        assert tree.need("tmp")[1].node.mode == 0o1777
        assert tree.need("etc/hosts")[1].size == tree.need("etc/resolv.conf")[1].size == 0
        assert tree.need("etc/passwd")[1].size > 0
        assert b"".join(tree.read(tree.need("environment")[1])) == b"a file of the image"
        for name in ("dev", "proc", "root", "var/tmp", "sys", "home", ".singularity.d/libs"):
            assert tree.need(name)[1].node.mode == 0o755
        assert tree.need("singularity")[0] == b".singularity.d/runscript"
        assert tree.need(".run")[0] == b".singularity.d/actions/run"
        for name in ("actions/exec", "env/10-docker2singularity.sh", "env/99-base.sh"):
            assert tree.need(f".singularity.d/{name}")[1].node.mode == 0o755
        script = b"".join(tree.read(tree.need(".singularity.d/runscript")[1]))
        assert script.startswith(b"#!/bin/sh\n")


def test_inspect(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    write(path)
    found = inspect_file(path)
    assert (found.kind, found.config.entrypoint) == ("sif", ("/bin/echo", "a b"))
    assert found.labels["org.label-schema.usage.singularity.deffile.bootstrap"] == "docker"
    assert str(found.config.platform) == "linux/amd64"


def run(script: str, *arguments: str, **env: str) -> str:
    argv = ["/bin/sh", "-c", script, "script", *arguments]
    done = subprocess.run(argv, capture_output=True, check=True, text=True, env=env)
    return done.stdout


def config(**fields: Any) -> ImageConfig:
    return ImageConfig(platform=Platform(os="linux", architecture="amd64"), **fields)


@pytest.mark.parametrize("word", ["", "a b", "it's", "$(id)", "`id`", '"', "\\", "\n", "-n", "é"])
def test_words_survive_the_shell(word: str) -> None:
    assert run(f"printf %s {quote(word)}") == word


def test_runscript() -> None:
    echo = ("printf", "[%s]", "it's", "$HOME")
    both = runscript(config(entrypoint=echo, cmd=("c d",)))
    assert run(both) == "[it's][$HOME][c d]"
    assert run(both, "x y", "$z") == "[it's][$HOME][x y][$z]"
    only_cmd = runscript(config(cmd=("printf", "%s", "default")))
    assert run(only_cmd) == "default"
    assert run(only_cmd, "printf", "other") == "other"
    assert run(runscript(config()), "echo", "x") == "x\n"


def test_environment() -> None:
    script = image_environment(config(env=("PATH=/opt:/bin", "A=it's $B\n`c`", "no-name=x", "E")))
    show = script + 'printf "%s|" "$PATH" "$A" "${E-unset}"\n'
    assert run(show, PATH="/usr/bin") == "/opt:/bin|it's $B\n`c`||"
    assert run(show, A="mine", PATH="/usr/bin") == "/opt:/bin|mine||"


@pytest.mark.parametrize("script", [*ACTIONS.values(), *ENVIRONMENT.values()])
def test_scripts_are_sound(script: str) -> None:
    subprocess.run(["/bin/sh", "-n"], input=script.encode(), check=True)


def test_runtime_variables() -> None:
    show = ENVIRONMENT["99-runtimevars.sh"] + ENVIRONMENT["99-base.sh"]
    show += 'echo "$PATH $LD_LIBRARY_PATH ${SING_USER_DEFINED_APPEND_PATH-unset}"\n'
    assert (
        run(
            show, PATH="/b", SING_USER_DEFINED_PREPEND_PATH="/a", SING_USER_DEFINED_APPEND_PATH="/c"
        )
        == "/a:/b:/c /.singularity.d/libs unset\n"
    )


def test_squashfs_layers_cannot_become_native(tmp_path: Path) -> None:
    found = read_ocisif(write_sif(tmp_path / "x.sif", [symlink("a", "b")]))
    source = Source(raw_manifest=found.raw_manifest, raw_config=found.raw_config)
    with pytest.raises(UsageError, match="squashfs"):
        write_native_image(
            assembly_of(source, lambda _: (tmp_path / "x.sif").open("rb")),
            tmp_path / "y.sif",
            compression=Compression(),
            overwrite=False,
            report=ignore,
        )


@pytest.mark.registry
def test_pull(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image([layer(*entries) for entries in LAYERS], config=CONFIG)
    registry.push(made, "native/app", "2")
    monkeypatch.chdir(tmp_path)
    assert main(["pull", "--native", "--no-https", f"docker://{registry.host}/native/app:2"]) == 0
    found = inspect_file(tmp_path / "app_2.sif")
    assert found.kind == "sif"
    assert (
        found.attributes["deffile"] == f"bootstrap: docker\nfrom: {registry.host}/native/app:2\n\n"
    )
