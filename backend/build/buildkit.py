"""BuildKit through its own clients, ``buildctl`` and ``docker buildx``, in ``rawjson``.

Both print one JSON ``SolveStatus`` a line on standard error (BuildKit 0.13 and buildx 0.13 on):
``{"vertexes": [{"digest", "name", "started", "completed", "cached", "error"}], "logs":
[{"vertex", "data"}]}``, data in base64, times in RFC 3339; other lines are their own talk.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backend.build.dockerfile import read_dockerfile
from backend.build.program import end_group, output_of, run_builder, start_group
from backend.build.request import assignments, each, flag
from backend.build.solve import SolveLog, Vertex
from backend.errors import FormatError, ToolFailedError
from backend.oci.json import Node, load
from backend.paths import cache_home
from backend.reference import Reference

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from backend.build.request import BuildRequest
    from backend.events import Report

_START_S = 15.0
"""Seconds that a daemon of ours gets to answer."""

_BUILDX = re.compile(r"\bv?(\d+)\.(\d+)")
_RAWJSON = (0, 13)


class Buildctl:
    """BuildKit's own client.

    Args:
        program: Path of ``buildctl``.
        address: Of the daemon; empty when ``daemon`` is started for each build.
        daemon: The command that starts one; empty when it runs already.
    """

    name = "buildctl"

    def __init__(self, program: str, address: str, *, daemon: Sequence[str] = ()) -> None:
        self._program = program
        self._address = address
        self._daemon = tuple(daemon)

    def lacks(self, request: BuildRequest) -> str:
        """Return what it cannot do of the request."""
        if request.plain_http:
            return "--no-https is a setting of the BuildKit daemon (buildkitd.toml)"
        return ""

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build on the daemon, into a layout on this side."""
        layout = folder / "layout"
        with self._running(folder) as address:
            argv = [self._program, "--addr", address, *buildctl_options(request, layout)]
            _solve(argv, request, report)
        return Reference(transport="oci", path=str(layout))

    @contextlib.contextmanager
    def _running(self, folder: Path) -> Iterator[str]:
        """Give the address of a daemon, one of ours if need be, which ends with the block."""
        if not self._daemon:
            yield self._address
            return
        address = f"unix://{folder}/buildkitd.sock"
        root = cache_home() / "buildkitd"
        argv = [*self._daemon, "--root", str(root), "--addr", address]
        if len(self._daemon) > 1:  # rootlesskit PROGRAM
            argv.append("--oci-worker-no-process-sandbox")
        process = start_group(argv, output=folder / "buildkitd.log")
        try:
            self._wait(process, address, folder / "buildkitd.log")
            yield address
        finally:
            end_group(process)

    def _wait(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        """Wait until the daemon answers.

        Raises:
            ToolFailedError: It ended, or says nothing.
        """
        deadline = time.monotonic() + _START_S
        probe = [self._program, "--addr", address, "debug", "workers"]
        while output_of(probe, environment={})[0]:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace")
                raise ToolFailedError(
                    argv=self._daemon, status=process.returncode or 1, stderr=said
                )
            time.sleep(0.1)


class Buildx:
    """Docker's client of BuildKit.

    Args:
        program: Path of ``docker``.
    """

    name = "buildx"

    def __init__(self, program: str) -> None:
        self._program = program

    def lacks(self, request: BuildRequest) -> str:
        """Return what it cannot do of the request."""
        if request.plain_http:
            return "--no-https is a setting of the builder (docker buildx create --config)"
        return ""

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build with the current buildx builder, into a layout on this side."""
        layout = folder / "layout"
        _solve([self._program, "buildx", *buildx_options(request, layout)], request, report)
        return Reference(transport="oci", path=str(layout))


def buildctl_options(request: BuildRequest, layout: Path) -> list[str]:
    """Return the words after ``buildctl --addr ADDRESS``."""
    file = request.dockerfile
    options = {
        "filename": file.name if file else "",
        "context": request.context if request.is_remote else "",
        "target": request.target,
        "platform": str(request.platform or ""),
        "force-network-mode": request.network,
        "image-resolve-mode": "pull" if request.pull else "",
        **{f"build-arg:{name}": value for name, value in _arguments(request).items()},
        **{f"label:{name}": value for name, value in request.labels.items()},
    }
    local = (
        []
        if request.is_remote or not file
        else [
            f"context={request.context}",
            f"dockerfile={file.parent}",
        ]
    )
    return [
        *("build", "--progress=rawjson", "--frontend", "dockerfile.v0"),
        *each("--local", local),
        *each("--opt", assignments({name: text for name, text in options.items() if text})),
        *(["--no-cache"] if request.no_cache else []),
        *(["--allow", "network.host"] if request.network == "host" else []),
        *each("--secret", request.secrets),
        *each("--ssh", request.ssh),
        *("--output", _output(request, layout)),
    ]


def buildx_options(request: BuildRequest, layout: Path) -> list[str]:
    """Return the words after ``docker buildx``."""
    return [
        *("build", "--progress=rawjson", "--provenance=false"),
        *each("--build-arg", assignments(_arguments(request))),
        *each("--label", assignments(request.labels)),
        *each("--secret", request.secrets),
        *each("--ssh", request.ssh),
        *flag("--target", request.target),
        *flag("--platform", request.platform),
        *flag("--network", request.network),
        *(["--no-cache"] if request.no_cache else []),
        *(["--pull"] if request.pull else []),
        *("--output", _output(request, layout)),
        *flag("--file", request.dockerfile),
        request.context,
    ]


def buildx_problem(program: str) -> str:
    """Return why buildx cannot be used here; empty when it can."""
    status, text = output_of([program, "buildx", "version"], environment={})
    version = _BUILDX.search(text)
    if status or version is None:
        return "docker has no buildx"
    if (int(version[1]), int(version[2])) < _RAWJSON:
        return f"buildx {version[0]} is too old: 0.13 was the first to speak rawjson"
    status, text = output_of([program, "buildx", "inspect"], environment={})
    driver = re.search(r"(?m)^Driver:\s*(\S+)", text)
    if status or driver is None:
        return "buildx has no builder that answers"
    if driver[1] == "docker":
        return "its builder has the docker driver, which writes no OCI layout"
    return ""


def buildkit_sockets() -> list[str]:
    """Return where a BuildKit daemon usually listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = [f"{runtime}/buildkit/buildkitd.sock"] if runtime else []
    return [*own, "/run/buildkit/buildkitd.sock"]


def feed_rawjson(line: str, log: SolveLog) -> None:
    """Hand a line of a client's output to the log.

    Raises:
        FormatError: It is JSON, but no ``SolveStatus``.
    """
    if not line.startswith("{"):
        if line.startswith(("ERROR:", "error:")):
            log.problem(line.partition(":")[2].strip())
        return
    status = load(line.encode(), "a BuildKit message")
    if vertexes := status.get("vertexes"):
        log.vertices(_vertex(entry) for entry in vertexes.items())
    if logs := status.get("logs"):
        for entry in logs.items():
            log.output(entry.need("vertex").text(), _data(entry))


def _solve(argv: Sequence[str], request: BuildRequest, report: Report) -> None:
    """Run a client to its end.

    Raises:
        BuildError: The build failed.
    """
    told = SolveLog(read_dockerfile(request), request.target, report)
    variables = {} if request.auth_folder is None else {"DOCKER_CONFIG": str(request.auth_folder)}
    if request.source_date_epoch is not None:
        variables["SOURCE_DATE_EPOCH"] = str(request.source_date_epoch)
    status = run_builder(argv, lambda line: feed_rawjson(line, told), environment=variables)
    if status:
        raise told.error(f"{Path(argv[0]).name} ended with status {status}")
    told.close()


def _arguments(request: BuildRequest) -> dict[str, str]:
    arguments = dict(request.build_args)
    if request.source_date_epoch is not None:
        arguments.setdefault("SOURCE_DATE_EPOCH", str(request.source_date_epoch))
    return arguments


def _output(request: BuildRequest, layout: Path) -> str:
    words = ["type=oci", "tar=false", f"dest={layout}"]
    if not request.compressed:
        words += ["compression=uncompressed", "force-compression=true"]
    if request.source_date_epoch is not None:
        words.append("rewrite-timestamp=true")
    return ",".join(words)


def _vertex(node: Node) -> Vertex:
    def text(name: str) -> str:
        found = node.get(name)
        return found.text() if found else ""

    return Vertex(
        digest=node.need("digest").text(),
        name=text("name"),
        started=_time(text("started")),
        completed=_time(text("completed")),
        cached=bool(node.object().get("cached")),
        error=text("error"),
    )


def _time(text: str) -> float | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise FormatError("a BuildKit message has a damaged time") from error


def _data(node: Node) -> bytes:
    found = node.get("data")
    try:
        return base64.b64decode(found.text(), validate=True) if found else b""
    except binascii.Error as error:
        raise FormatError("a BuildKit message is not base64") from error
