"""BuildKit through its own clients, ``buildctl`` and ``docker buildx``, in ``rawjson``.

Both print ``SolveStatus`` objects in JSON on standard error (BuildKit 0.13 and buildx 0.13 on):
``{"vertexes": [{"digest", "name", "started", "completed", "cached", "error"}], "logs":
[{"vertex", "data"}]}``, data in base64, times in RFC 3339; other lines are their own talk.
buildctl prints an object a line, buildx 0.13 spreads one over many, indented.

Tried with buildctl and buildkitd 0.23 (root, and rootless with rootlesskit 2.0), buildx 0.13
with Docker 26, whose ``docker`` driver writes an OCI layout only with the containerd image
store; without, the image goes into the daemon and is saved from there.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import itertools
import json
import os
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backend.build.cgroups import group_name, remove_groups
from backend.build.credentials import base_references
from backend.build.docker import SCRATCH_NAME
from backend.build.dockerfile import read_dockerfile
from backend.build.program import (
    output_of,
    output_stream,
    run_builder,
    running,
)
from backend.build.request import assignments, each, flag
from backend.build.saved import write_saved
from backend.build.solve import SolveLog, Vertex
from backend.errors import FormatError, ToolFailedError
from backend.events import Phase
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


_LOGINS = frozenset({"auths", "credsStore", "credHelpers"})
"""What docker's ``config.json`` says of logins."""

_MAX_MESSAGE = 8 << 20
"""Characters of one object."""


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
        if request.plain_http and not self._daemon:
            return "--no-https is a setting of the BuildKit daemon (buildkitd.toml)"
        return ""

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build on the daemon, into a layout on this side."""
        layout = folder / "layout"
        with self._running(request, folder) as address:
            argv = [self._program, "--addr", address, *buildctl_options(request, layout)]
            _solve(argv, request, folder, report)
        return Reference(transport="oci", path=str(layout))

    @contextlib.contextmanager
    def _running(self, request: BuildRequest, folder: Path) -> Iterator[str]:
        """Give the address of a daemon, one of ours if need be, which ends with the block."""
        if not self._daemon:
            yield self._address
            return
        address = f"unix://{folder}/buildkitd.sock"
        root, lock = _free_root()
        config = folder / "buildkitd.toml"
        config.write_text(daemon_config(request, group_name(folder)), encoding="utf-8")
        argv = [*self._daemon, "--config", str(config), "--root", str(root), "--addr", address]
        argv += ["--allow-insecure-entitlement", "network.host"]  # for --network=host
        if len(self._daemon) > 1:  # rootlesskit PROGRAM
            argv.append("--oci-worker-no-process-sandbox")
        log = folder / "buildkitd.log"
        try:
            with running(argv, output=log, folder=folder, keep=lock) as process:
                self._wait(process, address, log)
                yield address
        finally:
            remove_groups(folder)

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
        saves: Whether the builder writes no layout, so that the image has to go through the
            daemon's store.
    """

    name = "buildx"

    def __init__(self, program: str, *, saves: bool = False) -> None:
        self._program = program
        self._saves = saves

    def lacks(self, request: BuildRequest) -> str:
        """Return what it cannot do of the request."""
        if request.plain_http:
            return "--no-https is a setting of the builder (docker buildx create --config)"
        return ""

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build with the current buildx builder, into a layout on this side."""
        layout = folder / "layout"
        if request.auth_folder:
            complete_docker_config(request.auth_folder)
        if self._saves:
            self._build_and_save(request, folder, layout, report)
        else:
            options = buildx_options(request, _output(request, layout))
            _solve([self._program, "buildx", *options], request, folder, report)
        return Reference(transport="oci", path=str(layout))

    def _build_and_save(
        self, request: BuildRequest, folder: Path, layout: Path, report: Report
    ) -> None:
        """Build into the daemon's store, under a name that is removed again."""
        name = f"{SCRATCH_NAME}:{secrets.token_hex(8)}"
        id_file = folder / "image-id"
        options = ["--tag", name, "--iidfile", str(id_file)]
        words = ["buildx", *buildx_options(request, "type=docker", *options)]
        _solve([self._program, *words], request, folder, report)
        image = id_file.read_text(encoding="ascii").strip()
        report(Phase(name="save"))
        try:
            with output_stream([self._program, "save", image], folder=folder) as saved:
                write_saved(saved, layout)
        finally:
            output_of([self._program, "image", "rm", "--no-prune", name], environment={})
        report(Phase(name="save", state="done"))


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


def buildx_options(request: BuildRequest, output: str, *options: str) -> list[str]:
    """Return the words after ``docker buildx``.

    Args:
        request: What to build.
        output: The value of ``--output``.
        options: Others.
    """
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
        *("--output", output),
        *options,
        *flag("--file", request.dockerfile),
        request.context,
    ]


def daemon_config(request: BuildRequest, group: str) -> str:
    """Return the ``buildkitd.toml`` of a daemon of ours.

    Args:
        request: Tells which registries speak HTTP.
        group: The control group for its containers.
    """
    worker = f"[worker.oci]\ndefaultCgroupParent = {json.dumps(group)}\n"
    if not request.plain_http:
        return worker
    names = read_dockerfile(request).images(request.target)
    registries = dict.fromkeys(reference.registry for reference in base_references(names))
    return worker + "".join(f"[registry.{json.dumps(name)}]\nhttp = true\n" for name in registries)


def complete_docker_config(auth_folder: Path) -> None:
    """Make of the folder with our logins one in which docker finds all else of the user's.

    Its plugins, contexts and buildx builders are in the folder of its ``config.json``.
    """
    own = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()
    ours = auth_folder / "config.json"
    merged = json.loads(ours.read_bytes())
    for path in own.iterdir() if own.is_dir() else ():
        if path.name != ours.name:
            (auth_folder / path.name).symlink_to(path.absolute())
            continue
        with contextlib.suppress(OSError, FormatError):
            found = load(path.read_bytes(), "docker's config.json").object()
            merged = {name: found[name] for name in found.keys() - _LOGINS} | merged
    ours.write_text(json.dumps(merged), encoding="utf-8")


class RawJson:
    """Reads what a client prints.

    Args:
        log: Gets what it says.
    """

    def __init__(self, log: SolveLog) -> None:
        self._log = log
        self._open: list[str] = []
        self._size = 0

    def line(self, text: str) -> None:
        """Take the next line.

        Raises:
            FormatError: It is JSON, but no ``SolveStatus``.
        """
        if not self._open and not text.startswith("{"):
            if text.startswith(("ERROR:", "error:")):
                self._log.problem(text.partition(":")[2].strip())
            return
        self._open.append(text)
        self._size += len(text)
        if self._size > _MAX_MESSAGE:
            raise FormatError("a BuildKit message has no end")
        # Of an indented object only the last line begins with a brace that closes.
        if text.startswith("}") or (len(self._open) == 1 and text.endswith("}")):
            message = "".join(self._open)
            self._open.clear()
            self._size = 0
            _feed(message, self._log)


def _feed(message: str, log: SolveLog) -> None:
    status = load(message.encode(), "a BuildKit message")
    if vertexes := status.get("vertexes"):
        log.vertices(_vertex(entry) for entry in vertexes.items())
    if logs := status.get("logs"):
        for entry in logs.items():
            log.output(entry.need("vertex").text(), _data(entry))


def _free_root() -> tuple[Path, int]:
    """Return a folder for a daemon, with the cache of earlier builds, and the lock on it.

    Builds at the same time get a folder each: two daemons cannot share one.
    """
    home = cache_home() / "buildkitd"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in itertools.count(1):
        lock = os.open(home / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return home / str(number), lock
        os.close(lock)
    raise AssertionError("counting has no end")


def _solve(argv: Sequence[str], request: BuildRequest, folder: Path, report: Report) -> None:
    """Run a client to its end.

    Raises:
        BuildError: The build failed.
    """
    told = SolveLog(read_dockerfile(request), request.target, report)
    variables = {} if request.auth_folder is None else {"DOCKER_CONFIG": str(request.auth_folder)}
    if request.source_date_epoch is not None:
        variables["SOURCE_DATE_EPOCH"] = str(request.source_date_epoch)
    status = run_builder(argv, RawJson(told).line, environment=variables, folder=folder)
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
