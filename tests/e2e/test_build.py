"""Dockerfiles built for real, by every builder that Debian has."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import tarfile
import tempfile
import threading
import time
from base64 import b64encode
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.build.docker import DockerApi
from backend.build.dockerfile import read_dockerfile
from backend.build.request import BuildRequest
from backend.events import Failed, Finished, Output, Started, ignore
from backend.jobs import Jobs
from backend.oci.platform import host_platform
from backend.sif.ocisif import read_ocisif
from tests.support.builds import (
    SIFDECK,
    base,
    build,
    container_storage,
    content,
    events,
    last_steps,
)
from tests.support.docker import docker_socket, has_buildx
from tests.support.images import busybox_layer, image
from tests.support.registry import PASSWORD, USER, locked_registry, registry
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.registry import Registry
    from tests.support.users import Somebody

pytestmark = [pytest.mark.builder, pytest.mark.registry]

__all__ = ["base", "container_storage", "docker_socket", "locked_registry", "registry"]

BUILDERS = (
    *("buildah", "podman", "docker", "docker-classic"),
    # These are in no package of Debian 12.
    *(["buildctl"] if shutil.which("buildctl") and shutil.which("buildkitd") else []),
    *(["buildx"] if has_buildx() else []),
    "podman-socket",
)

DOCKERFILE = """\
ARG BASE={base}
FROM $BASE AS build
ARG WHO=nobody
RUN echo compiling {here} \\
 && echo "made for $WHO" > /made
RUN --mount=type=bind,target=/context echo errors >&2

FROM $BASE AS unused
RUN exit 77

FROM $BASE
COPY --from=build /made /made
ENV GREETING=hello
LABEL kind=test
ENTRYPOINT ["/bin/cat"]
CMD ["/made"]
"""


@pytest.fixture(params=BUILDERS)
def builder(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """The name of a builder that is there, set up for this test."""
    name: str = request.param
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(request.getfixturevalue("container_storage")))
    if name.startswith(("docker", "buildx")):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{request.getfixturevalue('docker_socket')}")
        monkeypatch.setenv("DOCKER_BUILDKIT", "0" if name == "docker-classic" else "1")
    if name.startswith(("docker", "build")):
        yield name.partition("-")[0]
        return
    program, _, socket = name.partition("-")
    if not shutil.which(program):
        pytest.skip(f"no {program}")
    if not socket:
        yield program
        return
    path = tmp_path / "podman.sock"
    service = subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{path}"], stderr=subprocess.DEVNULL
    )
    wait_until(path.exists)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    yield "docker"
    service.terminate()
    service.wait(10)


def with_builder(name: str) -> tuple[str, ...]:
    """Return the options for a builder; the daemon of the tests has no network of its own."""
    network = ("--network", "host") if name in {"docker", "buildx"} else ()
    # Docker's daemons take a registry on the loopback as it is.
    http = () if name == "buildx" else ("--no-https",)
    return ("--builder", name, *http, *network)


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]  # a function
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def log_in(home: Path, registry: Registry) -> None:
    """Write a login as SingularityCE keeps it."""
    secret = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    login = home / ".singularity" / "docker-config.json"
    login.parent.mkdir()
    login.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}))


def write(folder: Path, text: str, name: str = "Dockerfile") -> Path:
    path = folder / name
    path.write_text(text)
    return path


class TestEveryBuilder:
    """What a build is, whoever does it."""

    def test_a_build_in_stages_with_arguments_and_its_cache(
        self, builder: str, base: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        service = request.node.callspec.params["builder"] == "podman-socket"
        if os.environ.get("DOCKER_BUILDKIT") == "0":
            # The classic builder has no RUN --mount,
            text = DOCKERFILE.replace("--mount=type=bind,target=/context ", "")
            text = text.replace("RUN exit 77", "RUN true")  # and builds every stage
        else:
            text = DOCKERFILE
        write(tmp_path, text.format(base=base, here=tmp_path))
        words = ("x.oci.sif", "--json", *with_builder(builder), "--build-arg=WHO=us")
        first = build(tmp_path, *words, "--label", "extra=1")
        assert first.returncode == 0, first.stderr
        happened = events(first.stdout)
        assert isinstance(happened[0], Started)
        assert isinstance(happened[-1], Finished)
        assert {event.text for event in happened if isinstance(event, Output)} >= {
            f"compiling {tmp_path}",
            "errors",
        }
        steps = last_steps(happened)
        compiling = next(step for name, step in steps.items() if "compiling" in name)
        assert (compiling.line, compiling.state) == (4, "done")
        image = read_ocisif(tmp_path / "x.oci.sif")
        assert image.config.env == ("PATH=/bin", "BASE=yes", "GREETING=hello")
        assert image.config.labels["kind"] == "test"
        assert image.config.labels["extra"] == "1"
        assert image.config.entrypoint == ("/bin/cat",)
        assert content(tmp_path / "x.oci.sif", "/made") == "made for us\n"

        if service:
            return  # Podman 4.3's service finds nothing in its cache
        second = build(tmp_path, *words, "-F", "--label", "extra=1")
        assert second.returncode == 0, second.stderr
        steps = last_steps(events(second.stdout))
        assert next(s for name, s in steps.items() if "compiling" in name).state == "cached"
        again = read_ocisif(tmp_path / "x.oci.sif")
        assert again.manifest_digest == image.manifest_digest

    def test_a_step_that_fails(self, builder: str, base: str, tmp_path: Path) -> None:
        text = (
            f"FROM {base}\n\nRUN echo {tmp_path}\nRUN echo to be; \\\n    echo gone >&2; exit 3\n"
        )
        write(tmp_path, text)
        result = build(tmp_path, "x.oci.sif", "--json", *with_builder(builder))
        assert result.returncode == 1
        happened = events(result.stdout)
        failed = happened[-1]
        assert isinstance(failed, Failed)
        assert failed.message.startswith("step 3 failed (line 4 of the Dockerfile): RUN echo to be")
        assert "3" in failed.why
        steps = last_steps(happened)
        assert [step.state for step in steps.values()][1:] == ["done", "failed"]
        printed = [
            event.text for event in happened if isinstance(event, Output) and event.step == 3
        ]
        assert set(printed[:2]) == {"to be", "gone"}
        assert not (tmp_path / "x.oci.sif").exists()

    def test_a_stage_by_name_and_what_the_context_leaves_out(
        self, builder: str, base: str, tmp_path: Path
    ) -> None:
        write(tmp_path, f"FROM {base} AS one\nCOPY . /all\nFROM one\nRUN exit 9\n", "Else")
        write(tmp_path, "secret*\n!secret.pub\n**/*.o\n", ".dockerignore")
        (tmp_path / "sub").mkdir()
        for name in ("secret.key", "secret.pub", "sub/x.o", "sub/x.c"):
            (tmp_path / name).write_text(name)
        result = build(tmp_path, "x.sif", *with_builder(builder), "--target=one", "-f", "Else", ".")
        assert result.returncode == 0, result.stderr
        sent = {"secret.key": False, "secret.pub": True, "sub/x.o": False, "sub/x.c": True}
        assert {name: content(tmp_path / "x.sif", f"/all/{name}") == name for name in sent} == sent

    def test_a_base_image_that_needs_a_password(
        self,
        builder: str,
        locked_registry: Registry,
        tmp_path: Path,
        clean_home: Path,
        request: pytest.FixtureRequest,
    ) -> None:
        name = f"private-{request.node.callspec.params['builder']}"
        made = image([busybox_layer()], config={"Cmd": ["sh"], "Env": ["PATH=/bin"]})
        locked_registry.push(made, name)
        reference = f"{locked_registry.host}/{name}:latest"
        write(tmp_path, f"FROM {reference}\nRUN echo {tmp_path} > /made\n")
        words = ("x.sif", *with_builder(builder))
        log_in(clean_home, locked_registry)
        result = build(tmp_path, *words, TMPDIR=str(tmp_path))
        assert result.returncode == 0, result.stderr
        assert content(tmp_path / "x.sif", "/made") == f"{tmp_path}\n"
        # Nothing of the login stays in the places where builders and we write.
        assert not list(tmp_path.glob("sifdeck-*"))

    # Podman 4.3's service lets the running instruction end by itself.
    @pytest.mark.parametrize("builder", BUILDERS[:-1], indirect=True)
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_cancelling_leaves_nothing(
        self,
        builder: str,
        number: signal.Signals,
        base: str,
        tmp_path: Path,
        request: pytest.FixtureRequest,
    ) -> None:
        before = containers(request)
        write(tmp_path, f"FROM {base}\nRUN echo begin && sleep 987.5 {int(number)}\n")
        argv = [*SIFDECK, "build", "x.sif", *with_builder(builder), "--json"]
        with subprocess.Popen(
            argv,
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if b'"begin"' in line:
                    break
            assert b'"begin"' in line
            process.send_signal(number)
            rest, said = process.communicate(timeout=60)
        if number == signal.SIGTERM:
            assert process.returncode == 143, said
            assert events(rest.decode())[-1] == Failed(message="Interrupted", exit_code=143)
        kept = {"Dockerfile", "home", "podman.sock"}
        wait_until(lambda: {path.name for path in tmp_path.iterdir()} <= kept)
        wait_until(lambda: not sleepers("987.5", str(int(number))))
        wait_until(lambda: containers(request) == before)


class TestWithoutRoot:
    """The builders of Debian for users that have subordinate ids, and for one that has not."""

    @pytest.mark.parametrize("program", ["buildah", "podman"])
    def test_with_subordinate_ids(self, program: str, base: str) -> None:
        if not shutil.which(program):
            pytest.skip(f"no {program}")
        user = somebody(WITH_RANGE)
        with user_folder(user) as folder:
            write(folder, f"FROM {base}\nRUN chown 1000:8 /home && id -u > /made\nUSER 1000\n")
            # As in a batch job: without a folder for what lives as long as the session.
            result = self.build(folder, user, program)
            assert result.returncode == 0, result.stderr
            assert not list((folder / "tmp").iterdir())
            wait_until(lambda: not holders(folder))
            assert "vfs" not in result.stderr
            assert content(folder / "x.sif", "/made") == "0\n"
            assert read_ocisif(folder / "x.sif").config.user == "1000"

    def test_with_one_id(self, base: str) -> None:
        for program in ("buildah", "runc"):
            if not shutil.which(program):
                pytest.skip(f"no {program}")
        user = somebody(WITH_ONE)
        with user_folder(user) as folder:
            write(folder, f"FROM {base}\nRUN id -u > /made\n")
            result = self.build(folder, user, "buildah", XDG_RUNTIME_DIR=str(folder / "run"))
            assert result.returncode == 0, result.stderr
            assert content(folder / "x.sif", "/made") == "0\n"
            assert not list((folder / "tmp").iterdir())

    def build(
        self, folder: Path, user: Somebody, program: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Build in a home and a temporary folder of the test's own."""
        places = {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        words = ("x.sif", "--no-https", "--builder", program)
        return build(folder, *words, user=user, **places, **variables)


class TestDocker:
    """What only a daemon has."""

    def test_an_image_that_the_user_has_keeps_its_name(
        self, docker_socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{docker_socket}")
        write(tmp_path, f"FROM scratch\nCOPY Dockerfile /\nLABEL here={tmp_path}\n")
        request = BuildRequest(dockerfile=tmp_path / "Dockerfile", context=str(tmp_path))
        theirs = DockerApi(docker_socket, "buildkit")
        dockerfile = read_dockerfile(request)
        identity = theirs._build_with_buildkit(request, "mine:1", dockerfile, ignore)
        result = build(tmp_path, "x.sif", *with_builder("docker"))
        assert result.returncode == 0, result.stderr
        assert "CACHED" in result.stderr
        argv = ["docker", "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]
        images = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert f"mine:1 {identity}" in images.splitlines()
        assert "sifdeck" not in images
        subprocess.run(["docker", "rmi", "mine:1"], capture_output=True, check=True)


@pytest.fixture
def buildah(container_storage: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """buildah with a store of the tests' own."""
    if not shutil.which("buildah"):
        pytest.skip("no buildah")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(container_storage))
    return "buildah"


class TestCommandLine:
    """Forms and options; what is the same for all builders is tried with one."""

    def test_the_seed_lab(self, buildah: str, base: str, tmp_path: Path) -> None:
        banner = '#!/bin/sh\\necho "** $* **"\\n'
        write(
            tmp_path,
            f"FROM {base}\nRUN mkdir -p /usr/bin\n"
            f"RUN printf '{banner}' > /usr/bin/figlet && dd if=/bin/busybox of=/x count=0 && "
            "busybox chmod 755 /usr/bin/figlet\n"
            'ENTRYPOINT ["/usr/bin/figlet"]\n',
        )
        made = build(tmp_path, "--oci", "lab2-v2.oci.sif", "Dockerfile", "--no-https")
        assert made.returncode == 0, made.stderr
        assert f"Building with {buildah}" in made.stderr
        result = subprocess.run(
            [*SIFDECK, "run", "./lab2-v2.oci.sif", "This is ..."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout) == (0, "** This is ... **\n"), result.stderr

    def test_a_secret_is_seen_by_its_step_only(
        self, buildah: str, base: str, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("hunter2")
        write(
            tmp_path,
            f"FROM {base}\nRUN --mount=type=secret,id=token --mount=type=secret,id=other "
            "cat /run/secrets/token /run/secrets/other | wc -c > /size\n",
        )
        secrets = ("--secret", "id=token,src=token", "--secret", "id=other,env=OTHER")
        words = ("x.sif", "--no-https", "--builder", buildah, *secrets)
        result = build(tmp_path, *words, OTHER="abc")
        assert result.returncode == 0, result.stderr
        assert content(tmp_path / "x.sif", "/size") == "10\n"
        assert content(tmp_path / "x.sif", "/run/secrets/token") is None

    def test_the_same_time_gives_the_same_bytes(
        self, buildah: str, base: str, tmp_path: Path
    ) -> None:
        write(tmp_path, f"FROM {base}\nRUN echo {tmp_path} > /made\n")
        words = ("--no-https", "--builder", buildah, "--no-cache", "--source-date-epoch=1600000000")
        for name in ("a.sif", "b.sif"):
            result = build(tmp_path, name, *words)
            assert result.returncode == 0, result.stderr
        assert (tmp_path / "a.sif").read_bytes() == (tmp_path / "b.sif").read_bytes()
        assert read_ocisif(tmp_path / "a.sif").config.created.startswith("2020-09-13T12:26:40")

    def test_the_commit_gives_the_time(self, buildah: str, base: str, tmp_path: Path) -> None:
        if not shutil.which("git"):
            pytest.skip("no git")
        write(tmp_path, f"FROM {base}\nRUN true\n")
        when = {"GIT_AUTHOR_DATE": "@1500000000 +0000", "GIT_COMMITTER_DATE": "@1500000000 +0000"}
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        for words in (["init", "-q"], ["add", "Dockerfile"], ["commit", "-qm", "x"]):
            argv = ["git", *who, *words]
            subprocess.run(argv, cwd=tmp_path, env=os.environ | when, check=True)
        result = build(tmp_path, "x.sif", "--no-https", "--builder", buildah)
        assert result.returncode == 0, result.stderr
        assert read_ocisif(tmp_path / "x.sif").config.created.startswith("2017-07-14T02:40:00")

    def test_a_dockerfile_on_standard_input(self, buildah: str, base: str, tmp_path: Path) -> None:
        text = f"FROM {base}\nARG A\nARG B\nRUN echo $A $B > /made\n"
        write(tmp_path, "# two of them\n\nA=one\nB=two\n", "args")
        argv = [*SIFDECK, "build", "x.sif", "-", "--no-https", "--builder", buildah]
        argv += ["--build-arg-file", "args", "--build-arg", "B=three"]
        result = subprocess.run(
            argv, cwd=tmp_path, input=text, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        assert content(tmp_path / "x.sif", "/made") == "one three\n"

    def test_layers_are_kept_and_the_image_is_pushed(
        self, buildah: str, base: str, registry: Registry, tmp_path: Path
    ) -> None:
        write(tmp_path, f"FROM {base}\nRUN echo {tmp_path} > /made\n")
        tag = f"{registry.host}/built:{tmp_path.name.lower()}"
        words = ("x.sif", "--no-https", "--builder", buildah, "--keep-layers", "-t", tag)
        result = build(tmp_path, *words)
        assert result.returncode == 0, result.stderr
        assert len(read_ocisif(tmp_path / "x.sif").layers) == 2
        raw, _ = registry.get_manifest("built", tmp_path.name.lower())
        assert len(json.loads(raw)["layers"]) == 2

    def test_it_is_pushed_with_our_login(
        self, buildah: str, locked_registry: Registry, tmp_path: Path, clean_home: Path
    ) -> None:
        write(tmp_path, f"FROM scratch\nCOPY Dockerfile /\nLABEL here={tmp_path}\n")
        words = ("--builder", buildah, "--no-https", "-t", f"{locked_registry.host}/pushed:1")
        refused = build(tmp_path, "x.sif", *words)
        assert refused.returncode == 10
        assert "kept:    x.sif is complete" in refused.stderr
        log_in(clean_home, locked_registry)
        result = build(tmp_path, "y.sif", *words, TMPDIR=str(tmp_path))
        assert result.returncode == 0, result.stderr
        assert json.loads(locked_registry.get_manifest("pushed", "1")[0])["layers"]
        assert PASSWORD not in result.stderr
        assert not list(tmp_path.glob("sifdeck-*"))

    def test_a_native_sif(self, buildah: str, base: str, tmp_path: Path) -> None:
        write(tmp_path, f"FROM {base}\nRUN true\n")
        result = build(tmp_path, "x.sif", "--no-https", "--builder", buildah, "--native")
        assert result.returncode == 0, result.stderr
        listing = subprocess.run(
            [*SIFDECK, "sif", "list", "x.sif"], cwd=tmp_path, capture_output=True, check=True
        )
        assert b"Squashfs/*System" in listing.stdout

    def test_a_context_that_the_builder_fetches(
        self, buildah: str, base: str, tmp_path: Path
    ) -> None:
        write(tmp_path, f"FROM {base}\nCOPY made /made\n")
        (tmp_path / "made").write_text("far away")
        with tarfile.open(tmp_path / "context.tar", "w") as archive:
            for name in ("Dockerfile", "made"):
                archive.add(tmp_path / name, name)
        handler = functools.partial(Quiet, directory=str(tmp_path))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/context.tar"
            result = build(tmp_path, "x.sif", url, "--no-https", "--builder", buildah)
            server.shutdown()
        assert result.returncode == 0, result.stderr
        assert content(tmp_path / "x.sif", "/made") == "far away"

    def test_a_job_is_cancelled_while_the_base_image_is_fetched(
        self, buildah: str, tmp_path: Path, clean_home: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            write(tmp_path, f"FROM 127.0.0.1:{port}/base:latest\nRUN true\n")
            words = ("x.sif", "--no-https", "--builder", buildah, "--job")
            assert build(tmp_path, *words, TMPDIR=str(tmp_path)).stdout == "1\n"
            connection, _ = silent.accept()
            jobs = Jobs(clean_home / ".local/state/sifdeck/jobs")
            jobs.cancel(1)
            wait_until(lambda: jobs.get(1).is_over)
            connection.close()
        assert jobs.get(1).state == "cancelled"
        assert {path.name for path in tmp_path.iterdir()} == {"Dockerfile", "home"}

    @pytest.mark.parametrize("stage", ["export", "convert", "push"])
    def test_cancelling_after_the_last_step_leaves_nothing(
        self, stage: str, buildah: str, base: str, tmp_path: Path
    ) -> None:
        write(tmp_path, f"FROM {base}\nRUN dd if=/dev/urandom of=/big bs=1M count=100\n")
        with contextlib.ExitStack() as stack:
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            silent.settimeout(60)
            tag = f"127.0.0.1:{silent.getsockname()[1]}/big:1"
            words, reached = {
                # For a registry layers are packed, which takes long enough to be interrupted.
                "export": (["-t", tag], lambda: list(tmp_path.glob("sifdeck-build-*/layout/*"))),
                "convert": (["--compression=zstd:19"], lambda: list(tmp_path.glob(".x.sif*"))),
                "push": (["-t", tag], lambda: stack.enter_context(silent.accept()[0])),
            }[stage]
            argv = [*SIFDECK, "build", "x.sif", "--no-https", "--builder", buildah, *words]
            with subprocess.Popen(
                argv,
                cwd=tmp_path,
                env=os.environ | {"TMPDIR": str(tmp_path)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as process:
                wait_until(reached)
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=60)
        assert process.returncode == 143, said
        written = {path.name for path in tmp_path.iterdir()} - {"Dockerfile", "home"}
        assert written <= {"x.sif"}
        if written:  # what is to be pushed is complete, and stays
            assert read_ocisif(tmp_path / "x.sif").layers
        left = subprocess.run([buildah, "containers", "-q"], capture_output=True, check=True)
        assert left.stdout == b""

    def test_what_cannot_be_pushed_is_built_all_the_same(
        self, buildah: str, tmp_path: Path
    ) -> None:
        write(tmp_path, "FROM scratch\nCOPY Dockerfile /\n")
        with socket.create_server(("127.0.0.1", 0)) as server:
            tag = f"127.0.0.1:{server.getsockname()[1]}/x:1"
        result = build(tmp_path, "x.sif", "--no-https", "--builder", buildah, "-t", tag)
        assert result.returncode == 13
        assert "kept:    x.sif is complete" in result.stderr
        assert content(tmp_path / "x.sif", "/Dockerfile")

    def test_for_another_platform(self, buildah: str, tmp_path: Path) -> None:
        other = "arm64" if host_platform().architecture == "amd64" else "amd64"
        write(tmp_path, f"FROM scratch\nCOPY Dockerfile /\nLABEL here={tmp_path}\n")
        words = ("--builder", buildah)
        for name, options in (("a.sif", ["--arch", other]), ("b.sif", [])):
            result = build(tmp_path, name, *words, *options)
            assert result.returncode == 0, result.stderr
        found = [read_ocisif(tmp_path / name).config.platform for name in ("a.sif", "b.sif")]
        assert [platform.architecture for platform in found] == [
            other,
            host_platform().architecture,  # though the cache has what is the same of the other
        ]

    def test_programs_for_another_platform_cannot_run(self, buildah: str, tmp_path: Path) -> None:
        program = bytearray(Path("/bin/busybox").read_bytes())
        program[18:20] = b"\xff\xfe"  # e_machine: of no processor
        (tmp_path / "sh").write_bytes(program)
        (tmp_path / "sh").chmod(0o755)
        write(tmp_path, "FROM scratch\nCOPY sh /bin/sh\nRUN echo\n")
        result = build(tmp_path, "x.sif", "--builder", buildah)
        assert result.returncode == 1
        assert "step 3 failed (line 3 of the Dockerfile)" in result.stderr
        assert "qemu-user-static" in result.stderr

    def test_a_context_in_a_git_repository(self, buildah: str, base: str, tmp_path: Path) -> None:
        if not shutil.which("git"):
            pytest.skip("no git")
        source = tmp_path / "source"
        (source / "sub").mkdir(parents=True)
        write(source / "sub", f"FROM {base}\nCOPY made /made\n")
        (source / "sub/made").write_text("from git")
        commands = (
            ("init", "-q", "-b", "trunk", "."),
            ("add", "."),
            ("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x"),
        )
        for command in commands:
            subprocess.run(["git", *command], cwd=source, check=True)
        words = ("--no-https", "--builder", buildah)
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), GitDaemon) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"git://127.0.0.1:{server.server_address[1]}{source}"
            made = build(tmp_path, "x.sif", f"{url}#trunk:sub", *words)
            lost = build(tmp_path, "y.sif", f"{url}#elsewhere", *words)
            server.shutdown()
        assert made.returncode == 0, made.stderr
        assert content(tmp_path / "x.sif", "/made") == "from git"
        assert lost.returncode == 1
        assert "elsewhere" in lost.stderr

    def test_an_agent_is_passed_on_where_the_builder_takes_it(
        self, buildah: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for program in ("ssh-agent", "ssh-keygen", "ssh-add"):
            if not shutil.which(program):
                pytest.skip(f"no {program}")
        agent = tmp_path / "agent"
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", key], check=True)
        write(
            tmp_path,
            f"FROM {base}\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo seen > /made\n",
        )
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL) as one:
            wait_until(agent.exists)
            subprocess.run(["ssh-add", "-q", key], check=True)
            words = ("--no-https", "--builder", buildah, "--ssh", "default")
            result = build(tmp_path, "x.sif", *words)
            one.terminate()
        assert result.returncode == 0, result.stderr
        assert content(tmp_path / "x.sif", "/made") == "seen\n"

    def test_a_site_may_have_one_build_at_once(
        self, buildah: str, tmp_path: Path, clean_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIFDECK_CONFIG_DIR", str(tmp_path))
        write(tmp_path, "limits = { build = 1 }\n", "config.toml")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            write(tmp_path, f"FROM 127.0.0.1:{silent.getsockname()[1]}/base:latest\n")
            words = ("--no-https", "--builder", buildah, "--job")
            for name in ("a.sif", "b.sif"):
                assert build(tmp_path, name, *words).returncode == 0
            connection, _ = silent.accept()  # the first runs
            jobs = Jobs(clean_home / ".local/state/sifdeck/jobs")
            assert [job.state for job in jobs.list()] == ["queued", "running"]
            for number in (2, 1):
                jobs.cancel(number)
                wait_until(functools.partial(lambda one: jobs.get(one).is_over, number))
            connection.close()

    def test_two_builds_at_once(
        self, buildah: str, base: str, tmp_path: Path, clean_home: Path
    ) -> None:
        both = threading.Barrier(2)

        class Meeting(Quiet):
            def do_GET(self) -> None:
                both.wait(30)
                self.send_response(200)
                self.end_headers()

        with ThreadingHTTPServer(("127.0.0.1", 0), Meeting) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            for name in ("a", "b"):
                write(tmp_path, f"FROM {base}\nRUN busybox wget -q {url}/{name} -O -\n", name)
                words = (f"{name}.sif", name, "--no-https", "--builder", buildah, "--job")
                assert build(tmp_path, *words).returncode == 0
            jobs = Jobs(clean_home / ".local/state/sifdeck/jobs")
            wait_until(lambda: all(job.is_over for job in jobs.list()))
            server.shutdown()
        assert [job.state for job in jobs.list()] == ["done", "done"]

    @pytest.mark.parametrize(
        ("words", "status", "said"),
        [
            (["x.sif", "Nowhere"], 2, "there is no Dockerfile 'Nowhere'"),
            (["x.sif"], 2, "there is no Dockerfile"),
            (["x.sif", "args", "--build-arg", "A"], 2, "--build-arg 'A' is not NAME=VALUE"),
            (["x.sif", "args", "--source-date-epoch", "soon"], 2, "seconds since 1970"),
            (["x.sif", "args", "--builder", "kaniko"], 2, "known: buildctl, buildx, docker"),
            (["x.sif", "https://h/x.git", "-f", "args"], 2, "URL#BRANCH:FOLDER"),
            (["x.sif", "args", "-t", "oras://h/x:1"], 2, "is no name in a registry"),
            (["x.sif", "args", "--native", "--keep-layers"], 2, "leave --keep-layers out"),
            (["args", "args"], 1, "build target 'args' already exists"),
        ],
    )
    def test_what_makes_no_sense(
        self, words: list[str], status: int, said: str, tmp_path: Path
    ) -> None:
        write(tmp_path, "FROM scratch\n", "args")
        result = build(tmp_path, *words)
        assert result.returncode == status
        assert said in result.stderr

    def test_a_build_is_a_job(
        self, buildah: str, base: str, tmp_path: Path, clean_home: Path
    ) -> None:
        write(tmp_path, f"FROM {base}\nRUN echo {tmp_path}\n")
        words = ("x.sif", "--no-https", "--builder", buildah, "--job")
        started = build(tmp_path, *words)
        assert started.stdout == "1\n", started.stderr
        jobs = Jobs(clean_home / ".local/state/sifdeck/jobs")
        wait_until(lambda: jobs.get(1).is_over)
        view = jobs.view(1)
        view.refresh()
        assert jobs.get(1).state == "done", view.progress.ended
        assert [step.state for step in view.progress.steps.values()] == ["done", "done"]
        assert f"#2 {tmp_path}" in jobs.get(1).log.read_text()

    @pytest.mark.parametrize("program", ["buildah", "podman"])
    def test_a_shell_in_the_last_good_layer(
        self, program: str, buildah: str, base: str, tmp_path: Path, clean_home: Path
    ) -> None:
        if not shutil.which(program):
            pytest.skip(f"no {program}")
        # The last good layer is the third step's, whether it was built now or before.
        good = f"FROM {base} AS a\nRUN true\nFROM a\nRUN echo {tmp_path} > /made\n"
        write(tmp_path, f"{good}RUN exit 3\n")
        words = ("x.sif", "--no-https", "--builder", program, "--job")
        assert build(tmp_path, *words).stdout == "1\n"
        jobs = Jobs(clean_home / ".local/state/sifdeck/jobs")
        wait_until(lambda: jobs.get(1).is_over)
        before = subprocess.run([buildah, "containers", "-q"], capture_output=True, check=True)
        result = subprocess.run(
            [*SIFDECK, "jobs", "shell", "1"],
            input="cat /made; touch /new; exit 5\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout) == (5, f"{tmp_path}\n"), result.stderr
        after = subprocess.run([buildah, "containers", "-q"], capture_output=True, check=True)
        assert after.stdout == before.stdout


class GitDaemon(socketserver.BaseRequestHandler):
    """Hands a connection to git's own daemon, which cannot choose a free port itself."""

    def handle(self) -> None:
        """Serve one client."""
        argv = ["git", "daemon", "--inetd", "--export-all"]
        subprocess.run(argv, stdin=self.request, stdout=self.request, check=False)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Say nothing."""


@contextlib.contextmanager
def user_folder(user: Somebody) -> Iterator[Path]:
    """Give a folder of a user's, where no closed folder is above it."""
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-build-test-", dir=user.home))
    for name in ("run", "tmp"):
        (folder / name).mkdir(mode=0o700)
    for path in (folder, folder / "run", folder / "tmp"):
        os.chown(path, user.uid, user.gid)
    yield folder
    shutil.rmtree(folder)


def holders(folder: Path) -> list[str]:
    """Return the processes with a folder in their environment, as podman's holder has it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"={folder}".encode() in file.read_bytes():
                found.append(file.parent.name)
    return found


def sleepers(*words: str) -> list[str]:
    """Return the processes that sleep for so long."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            given = file.read_bytes().decode("utf-8", "replace").split("\0")
            if "sleep" in given and set(words) <= set(given):
                found.append(file.parent.name)
    return found


def containers(request: pytest.FixtureRequest) -> set[str]:
    """Return the containers that the builder of a test knows."""
    name = request.node.callspec.params["builder"]
    argv = {
        "buildah": ["buildah", "containers", "-q"],
        "docker": ["docker", "ps", "-aq"],
        "buildx": ["docker", "ps", "-aq"],
        "buildctl": ["true"],
    }.get(name.partition("-")[0], ["podman", "ps", "--all", "--external", "-q"])
    return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
