"""The Docker API over its Unix socket, spoken by us: no client program, also Podman's socket.

Docker's BuildKit is asked with ``version=2``.  The daemon then wants the context over a second
request to the same path (``remote=upload-request``), and answers the first with progress that
:mod:`backend.build.trace` reads.  Where there is no BuildKit the classic builder is used, whose
answer is text.  What takes a session of BuildKit's own protocol (secrets, ssh) is not possible
in this way, and :meth:`DockerApi.lacks` says so.  With the containerd image store (Docker 26:
an option, 29: usual) BuildKit cannot be handed a context like this either; ``docker buildx``
is the way to it, and without that the classic builder.

Closing the connection cancels a build: the daemon ends the running step and its container.
Podman's service (4.3) does not, and finds nothing in its cache, so it comes last.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import io
import json
import logging
import os
import re
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from backend.build.buildah import StepLog, Wording
from backend.build.buildx import CONTAINERD_STORE
from backend.build.context import is_added, name_in_context, write_context
from backend.build.credentials import auth_key, base_references
from backend.build.dockerfile import read_dockerfile
from backend.build.saved import write_saved
from backend.build.solve import SolveLog
from backend.build.trace import feed_trace
from backend.errors import BuildError, FormatError, ToolError, UsageError
from backend.escape import one_line
from backend.events import Note, Phase
from backend.oci.json import Node, load
from backend.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer as Buffer

    from backend.build.dockerfile import Dockerfile
    from backend.build.request import BuildRequest
    from backend.events import Report

_log = logging.getLogger(__name__)

_NEWEST = (1, 51)
"""The newest API that was tried, of Docker 28; a daemon may ask for a newer one than 1.40."""
_OLDEST = (1, 41)
"""Of Docker 20.10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What a kind of daemon cannot do, and what can.

    Attributes:
        mounts: The mounts of ``RUN`` that it has not; None for all.
        mounts_take: What has them.
        heredocs: The first version that knows them.
        heredocs_take: What that is.
    """

    mounts: tuple[str, ...] | None
    mounts_take: str
    heredocs: tuple[int, int]
    heredocs_take: str


_LIMITS = {
    # BuildKit asks its client for these, and we are none.
    "buildkit": _Limits(
        mounts=("secret", "ssh"),
        mounts_take="docker-buildx",
        heredocs=(1, 42),
        heredocs_take="Docker 23",
    ),
    # It drops the lines of a heredoc in silence.
    "classic": _Limits(
        mounts=None, mounts_take="BuildKit", heredocs=(1 << 16, 0), heredocs_take="BuildKit"
    ),
    "podman": _Limits(mounts=(), mounts_take="", heredocs=(4, 8), heredocs_take="Podman 4.8"),
}

_PODMAN_VERSION, _PODMAN_DOCKER_VERSION = "/v4.0.0", "/v1.41"
"""Of Podman's own API and of Docker's, as Podman 4 and later speak them."""

_CHUNK = 1 << 16
_TIMEOUT_S = 10.0
_MAX_MESSAGE = 8 << 20
"""Bytes in one line of an answer."""

SCRATCH_NAME = "sifdeck-build"
"""Under this name an image is in the daemon for as long as it is fetched."""

_PODMAN_ID = re.compile(r"[0-9a-f]{64}\n")
"""Podman's last word on its own path."""

_PAINT = re.compile(r"\x1b\[(?:91|0)m")

DOCKER = Wording(
    step=re.compile(r"()Step (\d+)/(\d+) : (.*)"),
    cached=re.compile(r" ---> Using cache"),
    result=re.compile(r" ---> ([0-9a-f]{12})"),
    noise=re.compile(
        r" ---> (?:Running in .*|Removed .*)?|Removing intermediate container .*|Successfully .*|"
    ),
)


class DockerApi:
    """A daemon that speaks the Docker API.

    Args:
        path: Its socket.
        kind: What builds behind it.
        version: Of the API that it is asked in; of Podman, its own.
        reason: Why it is the classic builder; empty for the others.
    """

    name = "docker"

    def __init__(
        self,
        path: str,
        kind: Literal["buildkit", "classic", "podman"],
        *,
        version: str = "1.41",
        reason: str = "",
    ) -> None:
        self._path = path
        self._kind = kind
        self._version = version
        self._reason = reason

    def __str__(self) -> str:
        return f"{self._kind} behind {self._path}{self._reason and ', '}{self._reason}"

    def lacks(self, request: BuildRequest) -> str:
        """Return what needs BuildKit's own protocol, BuildKit at all, or a newer one."""
        for what, wanted in (("--secret", request.secrets), ("--ssh", request.ssh)):
            if wanted:
                return f"{what} cannot be passed through the Docker API"
        dockerfile, limits = read_dockerfile(request), _LIMITS[self._kind]
        where = "in line {} of the Dockerfile takes {}; this is {}"
        if line := dockerfile.mount_line(limits.mounts, request.target):
            return f"the mount {where.format(line, limits.mounts_take, self)}"
        line = dockerfile.heredoc_line(request.target)
        if self._kind == "buildkit" and dockerfile.syntax:
            line = 0  # that one knows them
        if line and _numbers(self._version) < limits.heredocs:
            return f"the heredoc {where.format(line, limits.heredocs_take, self)}"
        return ""

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build and fetch the image; what is left in the daemon is its cache."""
        dockerfile = read_dockerfile(request)
        logins = _read_logins(request)
        self._pull_private(dockerfile, request.target, logins)
        layout = folder / "layout"
        if self._kind != "buildkit":
            self._save(self._build_classic(request, dockerfile, logins, report), layout, report)
            return Reference(transport="oci", path=str(layout))
        name = f"{SCRATCH_NAME}:{secrets.token_hex(8)}"
        image = self._build_with_buildkit(request, name, dockerfile, report)
        try:
            self._save(image, layout, report)
        finally:
            self._forget(name)
        return Reference(transport="oci", path=str(layout))

    def _save(self, image: str, layout: Path, report: Report) -> None:
        """Fetch an image, while the daemon still packs it."""
        report(Phase(name="save"))
        with self._request("GET", f"/images/{quote(image)}/get") as answer:
            write_saved(answer, layout)
        report(Phase(name="save", state="done"))

    def _forget(self, name: str) -> None:
        """Remove BuildKit's image, whose cache is apart; the classic cache is its images.

        By the name that we gave it: it may be an image of the user's, too, and by its id that
        one would lose its own name.
        """
        with self._request("DELETE", f"/images/{quote(name)}?noprune=1"):
            pass

    def _build_with_buildkit(
        self, request: BuildRequest, tag: str, dockerfile: Dockerfile, report: Report
    ) -> str:
        """Build, give the image a name of ours and return its id."""
        log = SolveLog(dockerfile, request.target, report)
        identity = secrets.token_hex(16)
        query = {"version": "2", "buildid": identity, "t": tag, **_query(request)}
        if request.is_remote:
            return self._follow(f"/build?{urlencode(query)}", {}, None, log)
        query["remote"] = "upload-request"
        if request.dockerfile and is_added(Path(request.context), request.dockerfile):
            text = f"for this builder the context also holds the Dockerfile, {query['dockerfile']}"
            report(Note(level="info", text=text))
        problems: list[UsageError] = []
        upload = threading.Thread(
            target=self._upload,
            args=(request, f"upload-request:{identity}", problems),
            daemon=True,
        )
        upload.start()
        try:
            return self._follow(f"/build?{urlencode(query)}", {}, None, log)
        except BuildError as error:
            if problems:  # what the daemon missed is what we could not send
                raise problems[0] from error
            raise

    def _upload(self, request: BuildRequest, identity: str, problems: list[UsageError]) -> None:
        """Send the context when the daemon asks for it; its failure fails the build itself."""
        query = urlencode({"version": "2", "buildid": identity, "remote": "upload-request"})
        try:
            with contextlib.closing(_Connection(self._path)) as connection:
                path = self._versioned(f"/build?{query}")
                connection.send_context(path, request, for_buildkit=True)
                connection.getresponse().read()
        except UsageError as error:
            problems.append(error)
        except (OSError, http.client.HTTPException) as error:
            _log.debug("the context was not sent: %s", error)

    def _build_classic(
        self,
        request: BuildRequest,
        dockerfile: Dockerfile,
        logins: dict[str, dict[str, str]],
        report: Report,
    ) -> str:
        """Build without BuildKit and return the image's id."""
        query = {"version": "1", "rm": "1", "forcerm": "1", **_query(request)}
        headers = {"X-Registry-Config": _encode(logins)} if logins else {}
        body = None if request.is_remote else request
        if self._kind == "classic":
            log = StepLog(dockerfile, request.target, report, DOCKER)
            return self._follow(f"/build?{urlencode(query)}", headers, body, log)
        # Podman's own path takes what Docker's has no words for.
        query |= {"isolation": "chroot", "layers": "1", "networkmode": request.network or "host"}
        query |= {"tlsVerify": "false"} if request.plain_http else {}
        log = StepLog(dockerfile, request.target, report)
        return self._follow(f"/libpod/build?{urlencode(query)}", headers, body, log)

    def _follow(
        self,
        path: str,
        headers: dict[str, str],
        body: BuildRequest | None,
        log: SolveLog | StepLog,
    ) -> str:
        """Make the request that builds, follow its answer, return the image's id.

        Raises:
            BuildError: An instruction failed.
        """
        image = ""
        with self._request("POST", path, headers, body) as answer:
            for message in _messages(answer):
                image = _image_id(message) or image
                if problem := _take(message, log):
                    if isinstance(log, SolveLog):
                        log.problem(problem)
                    raise log.error(problem)
        log.close()
        if not image:
            raise log.error("the daemon ended the build without an image")
        return image

    def _pull_private(
        self, dockerfile: Dockerfile, target: str, logins: dict[str, dict[str, str]]
    ) -> None:
        """Pull base images that need a login: BuildKit asks nobody for one on this way."""
        for reference in base_references(dockerfile.images(target)):
            login = logins.get(auth_key(reference.registry))
            if not login or self._kind != "buildkit":
                continue
            query = urlencode({"fromImage": reference.name, "tag": reference.version})
            path = f"/images/create?{query}"
            with self._request("POST", path, {"X-Registry-Auth": _encode(login)}) as answer:
                for message in _messages(answer):
                    if error := message.get("error"):
                        raise ToolError(
                            f"{reference} cannot be pulled: {one_line(error.text())}",
                            argv=["docker", "pull"],
                        )

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: BuildRequest | None = None,
    ) -> Iterator[IO[bytes]]:
        """Make a request and give its answer; leaving the block closes the connection.

        Raises:
            ToolError: The daemon refuses, or cannot be reached.
        """
        try:
            with contextlib.closing(_Connection(self._path)) as connection:
                if body:
                    connection.send_context(self._versioned(path), body, headers=headers)
                else:
                    connection.request(method, self._versioned(path), headers=headers or {})
                answer = connection.getresponse()
                if answer.status >= 300:
                    raise _refusal(answer)
                yield answer
        except (ConnectionError, http.client.HTTPException) as error:
            raise ToolError(
                f"the Docker daemon at {self._path} broke off: {error}", argv=["docker"]
            ) from error

    def _versioned(self, path: str) -> str:
        if self._kind == "podman":
            prefix = _PODMAN_VERSION if path.startswith("/libpod/") else _PODMAN_DOCKER_VERSION
            return prefix + path
        return f"/v{self._version}{path}"


class _Connection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, timeout: float | None = None) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def send_context(
        self,
        path: str,
        request: BuildRequest,
        *,
        for_buildkit: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a POST whose body is the build context, made while it is sent."""
        self.putrequest("POST", path)
        kind = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        for header, value in (kind | (headers or {})).items():
            self.putheader(header, value)
        self.endheaders()
        if request.dockerfile:
            with io.BufferedWriter(_Chunks(self), _CHUNK) as out:
                context = Path(request.context)
                write_context(context, request.dockerfile, out, for_buildkit=for_buildkit)
        self.send(b"0\r\n\r\n")


class _Chunks(io.RawIOBase):
    """A file that sends what is written to it in HTTP chunks (RFC 9112, section 7.1)."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__()
        self._connection = connection

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Send a chunk."""
        chunk = bytes(data)
        if chunk:
            self._connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        return len(chunk)


def answers(path: str) -> DockerApi | None:
    """Return the daemon behind a socket; None when none answers."""
    try:
        with contextlib.closing(_Connection(path, _TIMEOUT_S)) as connection:
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                return None
            if "Libpod" in (answer.getheader("Server") or ""):
                podman = _numbers(answer.getheader("Libpod-API-Version") or "")
                return DockerApi(path, "podman", version=f"{podman[0]}.{podman[1]}")
            version = _common_version(answer.getheader("Api-Version") or "")
            reason = _classic_reason(connection, version)
            return DockerApi(
                path, "classic" if reason else "buildkit", version=version, reason=reason
            )
    except (OSError, http.client.HTTPException, FormatError):
        return None


def _common_version(newest: str) -> str:
    """Return the API to speak with a daemon, given the newest that it knows."""
    major, minor = min(_numbers(newest), _NEWEST)
    return f"{major}.{minor}"


def _numbers(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else _OLDEST


def _classic_reason(connection: http.client.HTTPConnection, version: str) -> str:
    """Return why a Docker daemon must build without BuildKit; empty when it need not."""
    if os.environ.get("DOCKER_BUILDKIT") == "0":
        return "as DOCKER_BUILDKIT=0 says"
    connection.request("GET", f"/v{version}/info")
    information = load(connection.getresponse().read(_MAX_MESSAGE), "what the daemon says")
    if CONTAINERD_STORE in json.dumps(information.object().get("DriverStatus")):
        return "as it keeps images in containerd; BuildKit takes docker-buildx there"
    return ""


def _query(request: BuildRequest) -> dict[str, str]:
    """Return what both builders are asked for."""
    arguments = dict(request.build_args)
    if request.source_date_epoch is not None:
        arguments.setdefault("SOURCE_DATE_EPOCH", str(request.source_date_epoch))
    file = request.dockerfile
    wanted = {
        "dockerfile": name_in_context(Path(request.context), file) if file else "",
        "remote": request.context if request.is_remote else "",
        "buildargs": json.dumps(arguments) if arguments else "",
        "labels": json.dumps(request.labels) if request.labels else "",
        "target": request.target,
        "platform": str(request.platform or ""),
        "nocache": "1" if request.no_cache else "",
        "pull": "1" if request.pull else "",
        "networkmode": request.network,
    }
    return {key: value for key, value in wanted.items() if value}


def _messages(answer: IO[bytes]) -> Iterator[Node]:
    """Yield the JSON objects of an answer, one a line.

    Raises:
        FormatError: A line is no JSON object.
    """
    while line := answer.readline(_MAX_MESSAGE):
        if line.strip():
            message = load(line, "the daemon's answer")
            message.object()
            yield message


def _take(message: Node, log: SolveLog | StepLog) -> str:
    """Hand a message's progress to the log; return the error that it tells of, or nothing."""
    if problem := message.get("error"):
        return problem.text().strip()
    kind, stream = message.get("id"), message.get("stream")
    if kind and kind.text() == "moby.buildkit.trace" and isinstance(log, SolveLog):
        try:
            data = base64.b64decode(message.need("aux").text(), validate=True)
        except binascii.Error as error:
            raise FormatError("a BuildKit message is not base64") from error
        feed_trace(data, log)
    elif stream and isinstance(log, StepLog):
        # The classic builder paints what a step writes to standard error.
        for line in _PAINT.sub("", stream.text()).splitlines():
            log.line(line)
    return ""


def _image_id(message: Node) -> str:
    """Return the id of the image that a message tells of; empty for other messages."""
    stream = message.get("stream")
    if stream and _PODMAN_ID.fullmatch(stream.text()):
        return stream.text().strip()
    aux = message.get("aux")
    if aux is None or not isinstance(aux.value, dict):
        return ""
    found = aux.get("ID")
    return found.text() if found else ""


def _read_logins(request: BuildRequest) -> dict[str, dict[str, str]]:
    """Return the logins of this build in the API's form, by registry."""
    if request.auth_folder is None:
        return {}
    document = load((request.auth_folder / "config.json").read_bytes(), "our auth file")
    found = {}
    for registry, entry in document.need("auths").object().items():
        node = Node(entry, registry)
        if auth := node.get("auth"):
            user, _, password = base64.b64decode(auth.text()).decode().partition(":")
            found[registry] = {"username": user, "password": password, "serveraddress": registry}
        elif token := node.get("identitytoken"):
            found[registry] = {"identitytoken": token.text(), "serveraddress": registry}
    return found


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def _refusal(answer: http.client.HTTPResponse) -> ToolError:
    """Return the error for an answer that is none of success."""
    try:
        message = load(answer.read(1 << 16), "the answer").need("message").text()
    except FormatError:
        message = f"HTTP {answer.status}"
    return ToolError(f"the Docker daemon refuses: {one_line(message)}", argv=["docker"])
