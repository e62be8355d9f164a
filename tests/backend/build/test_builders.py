"""Command lines, detection, logins, archives: all that needs no builder."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from backend.build import cgroups, detect
from backend.build.buildah import Buildah, build_options, export_options
from backend.build.buildkit import (
    Buildctl,
    Buildx,
    buildctl_options,
    buildx_options,
    complete_docker_config,
    daemon_config,
)
from backend.build.buildx import find_buildx
from backend.build.cgroups import remove_groups
from backend.build.credentials import (
    auth_key,
    base_references,
    find_logins,
    write_auth_file,
)
from backend.build.docker import DockerApi
from backend.build.program import GROUPS
from backend.build.request import BuildRequest, parse_assignments, read_assignments
from backend.errors import BuildError, ToolFailedError, ToolMissingError, UsageError
from backend.events import Event, Step, ignore
from backend.oci.platform import parse_platform
from backend.registry.credentials import Credentials, Login
from backend.registry.secret import Secret
from tests.backend.build.test_progress import RECORDED
from tests.backend.build.test_saved import FIRST, old_archive
from tests.support.images import digest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def full(tmp_path: Path) -> BuildRequest:
    """A request that asks for everything."""
    return BuildRequest(
        dockerfile=tmp_path / "ci" / "Dockerfile",
        context=str(tmp_path),
        build_args={"B": "2", "A": "1"},
        labels={"l": "x y"},
        target="one",
        platform=parse_platform("linux/arm64"),
        secrets=("id=a,src=b",),
        ssh=("default",),
        no_cache=True,
        pull=True,
        network="none",
        plain_http=True,
        source_date_epoch=5,
        compressed=True,
        auth_folder=tmp_path / "auth",
    )


class TestOptions:
    def test_buildah(self, full: BuildRequest, tmp_path: Path) -> None:
        assert build_options(full, "subordinate") == [
            *("--isolation", "chroot", "--layers", "--force-rm", "--network", "none"),
            *("--build-arg", "A=1", "--build-arg", "B=2", "--label", "l=x y"),
            *("--secret", "id=a,src=b", "--ssh", "default", "--target", "one"),
            *("--platform", "linux/arm64", "--no-cache", "--pull", "--tls-verify=false"),
            *("--authfile", f"{tmp_path}/auth/config.json", "--timestamp", "5"),
            *("--file", f"{tmp_path}/ci/Dockerfile"),
        ]
        plain = BuildRequest(dockerfile=None, context="https://h/r.git")
        assert build_options(plain, "root") == [
            *("--isolation", "chroot", "--layers", "--force-rm", "--network", "host"),
        ]
        assert build_options(plain, "single")[:2] == ["--isolation", "rootless"]

    def test_export(self, tmp_path: Path) -> None:
        for program, word in (("buildah", "--disable-compression"), ("podman", "--uncompressed")):
            packed = export_options(program, "ID", tmp_path, compressed=True)
            plain = export_options(program, "ID", tmp_path, compressed=False)
            assert set(plain) - set(packed) == {word}
            assert "ID" in packed

    def test_buildctl(self, full: BuildRequest, tmp_path: Path) -> None:
        assert buildctl_options(full, tmp_path / "out") == [
            *("build", "--progress=rawjson", "--frontend", "dockerfile.v0"),
            *("--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}/ci"),
            *("--opt", "build-arg:A=1", "--opt", "build-arg:B=2"),
            *("--opt", "build-arg:SOURCE_DATE_EPOCH=5", "--opt", "filename=Dockerfile"),
            *("--opt", "force-network-mode=none", "--opt", "image-resolve-mode=pull"),
            *("--opt", "label:l=x y", "--opt", "platform=linux/arm64", "--opt", "target=one"),
            *("--no-cache", "--secret", "id=a,src=b", "--ssh", "default"),
            *("--output", f"type=oci,tar=false,dest={tmp_path}/out,rewrite-timestamp=true"),
        ]
        remote = BuildRequest(dockerfile=None, context="https://h/r.git")
        words = buildctl_options(remote, tmp_path)
        assert "--local" not in words
        assert "context=https://h/r.git" in words
        assert words[-1] == (
            f"type=oci,tar=false,dest={tmp_path},compression=uncompressed,force-compression=true"
        )

    def test_buildx(self, full: BuildRequest, tmp_path: Path) -> None:
        assert buildx_options(full, "type=x", "--more") == [
            *("build", "--progress=rawjson", "--provenance=false"),
            *("--build-arg", "A=1", "--build-arg", "B=2", "--build-arg", "SOURCE_DATE_EPOCH=5"),
            *("--label", "l=x y", "--secret", "id=a,src=b", "--ssh", "default"),
            *("--target", "one", "--platform", "linux/arm64", "--network", "none"),
            *("--no-cache", "--pull"),
            *("--output", "type=x", "--more"),
            *("--file", f"{tmp_path}/ci/Dockerfile", str(tmp_path)),
        ]

    def test_a_daemon_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_text("FROM h:5/a\nCOPY --from=h:5/b . .\nFROM ubuntu\n")
        request = BuildRequest(dockerfile=tmp_path / "Dockerfile", context=".", plain_http=True)
        worker = '[worker.oci]\ndefaultCgroupParent = "g"\n'
        assert daemon_config(request, "g") == f'{worker}[registry."docker.io"]\nhttp = true\n'
        first = replace(request, target="0")
        assert daemon_config(first, "g") == f'{worker}[registry."h:5"]\nhttp = true\n'
        assert daemon_config(replace(request, plain_http=False), "g") == worker
        assert Buildctl("x", "", daemon=("d",)).lacks(request) == ""
        assert "buildkitd.toml" in Buildctl("x", "unix:///y").lacks(request)

    def test_the_groups_of_a_build_are_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cgroups, "_ROOT", tmp_path)
        for place in ("b-1/buildkit/x", "memory/b-1/buildkit", "memory/b-2"):
            (tmp_path / place).mkdir(parents=True)
        remove_groups(tmp_path / "b-1")
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        assert left - {"home"} == {"memory", "memory/b-2"}

    def test_assignments(self, tmp_path: Path) -> None:
        assert parse_assignments(("A=1", "A=2=3", " B =  "), "--x") == {"A": "2=3", "B": "  "}
        for text in ("A", "=1", ""):
            with pytest.raises(UsageError, match="is not NAME=VALUE"):
                parse_assignments((text,), "--x")
        file = tmp_path / "args"
        file.write_text("# why\n\nA=1\n  B=2\n")
        assert read_assignments(file) == {"A": "1", "B": "2"}
        file.write_bytes(b"A=\xff\n")
        with pytest.raises(UsageError, match="cannot be read"):
            read_assignments(file)


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class TestBuildkitClients:
    """Recorded answers, replayed by a script under the client's name."""

    @pytest.fixture(autouse=True)
    def work_folder(self, tmp_path: Path) -> None:
        """Make of the test's folder one as a build has it."""
        (tmp_path / GROUPS).mkdir()

    def request(self, folder: Path) -> BuildRequest:
        (folder / "Dockerfile").write_text("FROM a AS build\n\nRUN make all\n")
        return BuildRequest(dockerfile=folder / "Dockerfile", context=str(folder))

    def test_a_build(self, tmp_path: Path) -> None:
        (tmp_path / "recorded").write_text("\n".join(RECORDED))
        client = program(
            tmp_path, "docker", f'echo "$*" > {tmp_path}/argv; cat {tmp_path}/recorded >&2'
        )
        happened: list[Event] = []
        made = Buildx(str(client)).build(self.request(tmp_path), tmp_path, happened.append)
        assert (made.transport, made.path) == ("oci", f"{tmp_path}/layout")
        assert [event.name for event in happened if isinstance(event, Step)][:1] == [
            "FROM docker.io/library/a@sha256:00"
        ]
        words = (tmp_path / "argv").read_text().split()
        assert words[:3] == ["buildx", "build", "--progress=rawjson"]

    def test_a_failure_and_the_logins(self, tmp_path: Path) -> None:
        vertex = {"digest": "d", "name": "[build 2/2] RUN make all", "error": "exit code: 2"}
        (tmp_path / "recorded").write_text(json.dumps({"vertexes": [vertex]}) + "\n")
        client = program(
            tmp_path,
            "buildctl",
            f'echo "$DOCKER_CONFIG $*" > {tmp_path}/argv; cat {tmp_path}/recorded >&2; exit 1',
        )
        builder = Buildctl(str(client), "unix:///x")
        request = self.request(tmp_path)
        with_logins = BuildRequest(
            dockerfile=request.dockerfile, context=request.context, auth_folder=tmp_path / "auth"
        )
        with pytest.raises(BuildError, match=r"step 1 failed \(line 3 of the Dockerfile\)"):
            builder.build(with_logins, tmp_path, ignore)
        words = (tmp_path / "argv").read_text().split()
        assert words[:4] == [f"{tmp_path}/auth", "--addr", "unix:///x", "build"]

    def test_a_daemon_of_ours_ends_with_the_build(self, tmp_path: Path) -> None:
        daemon = program(tmp_path, "buildkitd", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
        client = program(
            tmp_path, "buildctl", f'case "$*" in *workers) test -s {tmp_path}/pid;; esac'
        )
        builder = Buildctl(str(client), "", daemon=(str(daemon),))
        builder.build(self.request(tmp_path), tmp_path, ignore)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_a_daemon_that_does_not_start(self, tmp_path: Path) -> None:
        daemon = program(tmp_path, "buildkitd", "echo no user namespaces; exit 4")
        client = program(tmp_path, "buildctl", "exit 1")
        builder = Buildctl(str(client), "", daemon=(str(daemon),))
        with pytest.raises(ToolFailedError, match="no user namespaces"):
            builder.build(self.request(tmp_path), tmp_path, ignore)

    def test_two_daemons_of_ours_have_a_folder_each(self, tmp_path: Path) -> None:
        script = f'echo "$4" >> {tmp_path}/roots; exec sleep 1000'
        daemon = program(tmp_path, "buildkitd", script)
        inner = tmp_path / "inner"
        (inner / GROUPS).mkdir(parents=True)
        wanted = f"test -s {tmp_path}/roots"
        client = program(tmp_path, "buildctl", f'case "$*" in *workers) {wanted};; esac')
        builder = Buildctl(str(client), "", daemon=(str(daemon),))
        with builder._running(self.request(tmp_path), tmp_path):
            builder.build(self.request(inner), inner, ignore)
        builder.build(self.request(inner), inner, ignore)
        roots = (tmp_path / "roots").read_text().splitlines()
        assert len(set(roots[:2])) == 2
        assert roots[2] == roots[0]

    def test_an_image_that_has_to_be_saved(self, tmp_path: Path) -> None:
        archive = tmp_path / "saved.tar"
        archive.write_bytes(old_archive(FIRST))
        script = (
            f'echo "$*" >> {tmp_path}/said; case "$1" in save) cat {archive};; '
            "buildx) while test $# -gt 0; do test $1 = --iidfile && echo sha256:x > $2; shift; "
            "done;; esac"
        )
        client = program(tmp_path, "docker", script)
        found = Buildx(str(client), saves=True).build(self.request(tmp_path), tmp_path, ignore)
        blobs = tmp_path / "layout" / "blobs" / "sha256"
        assert found.transport == "oci"
        assert (blobs / digest(FIRST).removeprefix("sha256:")).read_bytes() == FIRST
        said = (tmp_path / "said").read_text().splitlines()
        name = said[0].split("--tag ")[1].split()[0]
        assert said[1:] == ["save sha256:x", f"image rm --no-prune {name}"]

    def test_docker_finds_its_own_things_beside_our_logins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        (tmp_path / "docker" / "cli-plugins").mkdir(parents=True)
        theirs = {"credsStore": "x", "auths": {"h": {}}, "currentContext": "far"}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(theirs))
        login = Login(username="me", secret=Secret("word"))
        folder = write_auth_file({"h": login}, tmp_path)
        assert folder
        complete_docker_config(folder)
        found = json.loads((folder / "config.json").read_text())
        auth = base64.b64encode(b"me:word").decode()
        assert found == {"auths": {"h": {"auth": auth}}, "currentContext": "far"}
        assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
        assert (folder / "cli-plugins").readlink() == tmp_path / "docker" / "cli-plugins"

    def test_saving_fails(self, tmp_path: Path) -> None:
        client = program(
            tmp_path,
            "docker",
            'case "$1" in save) echo no space >&2; exit 1;; image) exit;; esac; '
            "while test $# -gt 0; do test $1 = --iidfile && echo sha256:x > $2; shift; done",
        )
        with pytest.raises(ToolFailedError, match="no space"):
            Buildx(str(client), saves=True).build(self.request(tmp_path), tmp_path, ignore)

    @pytest.mark.parametrize(
        ("version", "driver", "store", "reason", "usable"),
        [
            ("v0.14.1 59582a8", "docker-container", "", "0.14, docker-container driver", True),
            ("v0.12.1 59582a8", "docker-container", "", "0.12 is too old", False),
            ("v0.14.1 59582a8", "docker", "[]", "0.14, docker driver", True),
            ("", "docker", "", "docker has no buildx", False),
            ("v0.14.1", "x\nError: no", "", "no builder that answers", False),
        ],
    )
    def test_which_buildx_will_do(
        self, version: str, driver: str, store: str, reason: str, usable: bool, tmp_path: Path
    ) -> None:
        script = (
            f"case $2 in version) echo 'github.com/docker/buildx {version}';; "
            f"inspect) printf 'Driver: {driver}\\n';; --format) echo '{store}';; esac"
        )
        make, found = find_buildx(str(program(tmp_path, "docker", script)))
        assert reason in found
        assert (make is not None) == usable

    @pytest.mark.parametrize(("store", "saves"), [("containerd.snapshotter.v1", 0), ("x", 1)])
    def test_the_docker_driver_writes_layouts_with_containerd(
        self, store: str, saves: int, tmp_path: Path
    ) -> None:
        script = (
            f'echo "$*" >> {tmp_path}/said; case $2 in version) echo v0.14.1;; '
            f"inspect) echo 'Driver: docker';; --format) echo '[[\"t\",\"io.{store}\"]]';; esac"
        )
        make, _ = find_buildx(str(program(tmp_path, "docker", script)))
        assert make
        with contextlib.suppress(FileNotFoundError):  # this client writes no image id
            make().build(self.request(tmp_path), tmp_path, ignore)
        assert ("type=docker" in (tmp_path / "said").read_text()) == bool(saves)


class TestDetection:
    def test_the_order_and_the_reasons(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            detect, "find_program", lambda name: f"/bin/{name}" if name == "podman" else ""
        )
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
        found = list(detect.candidates())
        assert [candidate.name for candidate in found] == [
            *("buildctl", "buildx", "docker", "buildah", "podman", "docker"),
        ]
        usable = [candidate.name for candidate in found if candidate.make]
        assert usable[:1] == ["podman"]
        assert found[2].reason == f"no daemon answers at {tmp_path}/no.sock"
        plain = BuildRequest(dockerfile=None, context=".")
        assert detect.choose(plain).name == "podman"

    def test_looking_loads_none_of_them(self, tmp_path: Path) -> None:
        docker = program(tmp_path, "docker", "exit 1")
        script = (
            "import sys\nfrom backend.build import detect\n"
            "detect.docker_sockets = detect.podman_sockets = lambda: ['/nowhere']\n"
            f"found = {{'docker': {str(docker)!r}, 'buildah': '/bin/buildah'}}\n"
            "detect.find_program = lambda name: found.get(name, '')\n"
            "assert 'buildah' in detect.summary()\n"
            "print(*(name for name in sys.modules if name.startswith('backend.build.')))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        clients = {f"backend.build.{name}" for name in ("buildah", "buildkit", "docker")}
        assert loaded
        assert not loaded & clients

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(detect, "find_program", lambda _: "")
        monkeypatch.setattr(detect, "answers", lambda _: None)
        monkeypatch.setattr(detect, "release", lambda: {"ID": "rocky", "ID_LIKE": "rhel centos"})
        plain = BuildRequest(dockerfile=None, context=".")
        with pytest.raises(ToolMissingError, match="no builder can be used here") as caught:
            detect.choose(plain)
        assert caught.value.hint.startswith("dnf install buildah")
        assert "buildctl is not installed" in caught.value.why
        with pytest.raises(ToolMissingError, match="the builder podman cannot be used here"):
            detect.choose(plain, "podman")
        with pytest.raises(UsageError, match="no builder 'kaniko'"):
            detect.choose(plain, "kaniko")

    def test_one_that_lacks_something_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            detect, "find_program", lambda name: "/bin/buildah" if name == "buildah" else ""
        )
        monkeypatch.setattr(detect, "answers", lambda path: DockerApi(path, "buildkit"))
        plain = BuildRequest(dockerfile=None, context=".")
        secret = BuildRequest(dockerfile=None, context=".", secrets=("id=x",))
        assert detect.choose(plain).name == "docker"
        assert detect.choose(secret).name == "buildah"
        with pytest.raises(UsageError, match="docker cannot build this") as caught:
            detect.choose(secret, "docker")
        assert "--secret cannot be passed through the Docker API" in caught.value.why
        agent = BuildRequest(dockerfile=None, context=".", ssh=("default",))
        assert detect.choose(agent).name == "buildah"
        monkeypatch.setattr(detect, "find_program", lambda _: "")
        with pytest.raises(UsageError, match="no builder here can build this") as caught:
            detect.choose(agent)
        assert "--ssh cannot be passed through the Docker API" in caught.value.why

    def test_a_socket_that_is_named_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///mine.sock")
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
        assert detect.docker_sockets() == [
            "/mine.sock",
            "/var/run/docker.sock",
            "/run/user/7/docker.sock",
        ]


class TestWhatABuilderLacks:
    """Of a Dockerfile, said before it is built, with the line."""

    def request(self, folder: Path, text: str, target: str = "") -> BuildRequest:
        (folder / "Dockerfile").write_text(text)
        return BuildRequest(dockerfile=folder / "Dockerfile", context=str(folder), target=target)

    @pytest.mark.parametrize(
        ("said", "lack"),
        [
            ("buildah version 1.28.2 (image-spec 1.1.0)", "line 3 of the Dockerfile takes buildah"),
            ("buildah version 1.33.0 (image-spec 1.1.0)", ""),
            ("buildah version 2.0", ""),
            ("buildah nonsense", "this is 0.0"),
            ("podman version 4.3.1", "takes podman 4.8, and this is 4.3"),
            ("podman version 5.4.2", ""),
        ],
    )
    def test_heredocs(
        self, said: str, lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = said.split(maxsplit=1)[0]
        program(tmp_path, name, f'echo "{said}"')
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        request = self.request(tmp_path, "FROM a AS b\n\nRUN <<EOF\nx\nEOF\nFROM a AS c\n", "b")
        found = Buildah(name).lacks(request)
        assert lack in found
        assert bool(found) == bool(lack)
        assert Buildah(name).lacks(replace(request, target="c")) == ""

    @pytest.mark.parametrize(
        ("kind", "version", "text", "lack"),
        [
            ("buildkit", "1.41", "COPY <<EOF /x\nEOF", "the heredoc in line 2"),
            ("buildkit", "1.42", "COPY <<EOF /x\nEOF", ""),
            ("buildkit", "1.41", "RUN --mount=type=cache,target=/c x", ""),
            ("buildkit", "1.45", "RUN --mount=target=/t --mount=type=secret,id=s x", "line 2"),
            ("buildkit", "1.45", "RUN --mount=type=ssh x", "takes docker-buildx"),
            ("classic", "1.45", "RUN --mount=target=/c x", "takes BuildKit; this is classic"),
            ("classic", "1.45", "RUN <<EOF\nEOF", "takes BuildKit; this is classic"),
            ("classic", "1.45", "RUN cat <<<EOF", ""),
            ("podman", "4.3", "RUN <<EOF\nEOF", "takes Podman 4.8"),
            ("podman", "5.0", "RUN <<EOF\nEOF", ""),
            ("podman", "4.3", "RUN --mount=type=tmpfs,target=/t x", ""),
        ],
    )
    def test_daemons(
        self,
        kind: Literal["buildkit", "classic", "podman"],
        version: str,
        text: str,
        lack: str,
        tmp_path: Path,
    ) -> None:
        daemon = DockerApi("/s", kind, version=version)
        found = daemon.lacks(self.request(tmp_path, f"FROM a\n{text}\n"))
        assert lack in found
        assert bool(found) == bool(lack)

    def test_a_frontend_of_the_dockerfile_knows_heredocs(self, tmp_path: Path) -> None:
        request = self.request(tmp_path, "# syntax=x\nFROM a\nRUN <<EOF\nEOF\n")
        assert DockerApi("/s", "buildkit", version="1.41").lacks(request) == ""


class TestLogins:
    def test_they_are_found_for_what_is_needed(self, clean_home: Path) -> None:
        secret = base64.b64encode(b"me:word").decode()
        config = clean_home / ".docker" / "config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"auths": {"h:5000": {"auth": secret}, "other": {}}}))
        references = base_references(["h:5000/a:1", "ubuntu", "$BROKEN"])
        assert [reference.registry for reference in references] == ["h:5000", "docker.io"]
        logins = find_logins(references, Credentials())
        assert list(logins) == ["h:5000"]
        hub = {"auths": {"https://index.docker.io/v1/": {"auth": secret}}}
        config.write_text(json.dumps(hub))
        assert list(find_logins(references, Credentials())) == list(hub["auths"])
        assert auth_key("docker.io") in hub["auths"]

    def test_the_file_is_private(self, tmp_path: Path) -> None:
        login = Login(username="me", secret=Secret("word"))
        token = Login(username="", secret=Secret("t"), kind="identity")
        folder = write_auth_file({"h": login, "i": token}, tmp_path)
        assert folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        file = folder / "config.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text()) == {
            "auths": {
                "h": {"auth": base64.b64encode(b"me:word").decode()},
                "i": {"identitytoken": "t"},
            }
        }
        assert write_auth_file({}, tmp_path) is None
