"""buildah and podman, which build with the same engine and take the same options.

Facts from trying them (buildah 1.28, podman 4.3):

* ``--isolation chroot`` needs neither cgroups nor a container runtime, as root and with
  subordinate ids; with a single id only ``rootless`` does, with ``ignore_chown_errors``.
* ``-t oci:DIR`` with ``--layers`` writes a good layout and fails: build first, then export.
* A cancelled podman leaves its working container, and ends with 0 after SIGTERM: what counts
  is the image's id at the end, and our containers are recognised by a mark and removed.
* With ``--iidfile`` nothing tells the images of the steps, in which a shell can be opened.
* The vfs driver copies the whole image for each step.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.build.dockerfile import Dockerfile, read_dockerfile
from backend.build.podmanstate import podman_state
from backend.build.program import output_of, run_builder, run_on_terminal
from backend.build.request import assignments, each, flag
from backend.build.steps import Steps
from backend.errors import BackendError, ToolFailedError
from backend.escape import one_line
from backend.events import Note, Phase, Retained, ignore
from backend.oci.json import load
from backend.oci.platform import host_platform
from backend.reference import Reference
from backend.runtime.host import find_map_tools, find_program
from backend.runtime.identity import read_caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.build.request import BuildRequest
    from backend.events import Report

_ERROR = re.compile(r'(?:Error: )?(?:error )?building at STEP ".*": (?:error )?(.*)|Error: (.*)')

_BASE = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE)

_IMAGE_ID = re.compile(r"[0-9a-f]{64}")

_MAX_ERROR = 4000
"""Characters of an error that spans several lines."""

_MARK = "--cgroup-parent"
"""The option whose value a working container's record repeats.  Without cgroups, which chroot
isolation does without, it has no other effect."""


_HEREDOCS = {"buildah": (1, 33), "podman": (4, 8)}
"""The first versions that know them; earlier ones take their lines for instructions."""

_RECORD = "builder.json"
"""The file, in the folder of a build, with what it takes to remove its containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a builder words its progress.

    Attributes:
        step: Matches the line that begins a step; groups: stage, number, total, instruction.
        cached: Matches the line that says that nothing had to be done.
        result: Matches the line that says that a step ended; group: the id of its image.
        noise: Matches lines that say nothing to a person.
    """

    step: re.Pattern[str]
    cached: re.Pattern[str]
    result: re.Pattern[str]
    noise: re.Pattern[str]


BUILDAH = Wording(
    step=re.compile(r"(?:\[(\d+)/\d+\] )?STEP (\d+)/(\d+): (.*)"),
    cached=re.compile(r"--> Using cache [0-9a-f]{12,}"),
    result=re.compile(r"--> ([0-9a-f]{11,64})|(?:\[\d+/\d+\] )?COMMIT(?: \S+)?"),
    noise=re.compile(r"subprocess exited with status \d+|Successfully tagged .*"),
)


class Buildah:
    """buildah or podman.

    Args:
        program: ``buildah`` or ``podman``.
    """

    def __init__(self, program: str) -> None:
        self.name = program

    def lacks(self, request: BuildRequest) -> str:
        """Return what it cannot do of the request."""
        line = read_dockerfile(request).heredoc_line(request.target)
        if not line:
            return ""
        said = re.search(r"\b(\d+)\.(\d+)", output_of([self.name, "--version"], environment={})[1])
        needed, version = _HEREDOCS[self.name], (int(said[1]), int(said[2])) if said else (0, 0)
        if version >= needed:
            return ""
        return (
            f"the heredoc in line {line} of the Dockerfile takes {self.name} "
            f"{needed[0]}.{needed[1]}, and this is {version[0]}.{version[1]}"
        )

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build in the user's own store, whose layers are the cache of the next build."""
        if self.name == "buildah" or _has_runtime_folder():
            return self._build(request, folder, report)
        with podman_state():
            return self._build(request, folder, report)

    def _build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        environment = _environment(self.name, request, folder)
        program = [self.name, *self._storage_options(environment, report)]
        image = self._run(program, request, folder, environment, report)
        if not self._is_for(image, request, program, environment):
            text = "the cache holds this for another platform; building every step anew"
            report(Note(level="info", text=text))
            anew = replace(request, no_cache=True)
            image = self._run(program, anew, folder, environment, report)
        layout = folder / "layout"
        verb = export_options(self.name, image, layout, compressed=request.compressed)
        report(Phase(name="export"))
        status, output = output_of([*program, *verb], environment=environment, folder=folder)
        if status:
            raise ToolFailedError(argv=[*program, *verb], status=status, stderr=output)
        report(Phase(name="export", state="done"))
        return Reference(transport="oci", path=str(layout))

    def _run(
        self,
        program: Sequence[str],
        request: BuildRequest,
        folder: Path,
        environment: dict[str, str],
        report: Report,
    ) -> str:
        """Run the instructions and return the image's id."""
        mark, mode = f"sifdeck-{secrets.token_hex(8)}", _mode()
        argv = [
            *program,
            "build",
            *build_options(request, mode),
            # With one id there is a container runtime, which would try to make the cgroup,
            # and which ends with its container.
            *([] if mode == "single" else [_MARK, mark]),
            request.context,
        ]
        steps = StepLog(read_dockerfile(request), request.target, report)
        finished = False
        record = {"argv": program, "mark": mark, "environment": environment}
        (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        try:
            status = run_builder(argv, steps.line, environment=environment, folder=folder)
            finished = status == 0 and bool(steps.image)
            if not finished:
                error = steps.error(f"{self.name} ended with status {status}")
                if steps.good:
                    image_id, step = steps.good
                    report(Retained(builder=self.name, image=image_id, step=step))
                raise error
        finally:
            if not finished:
                remove_containers(folder)
        steps.close()
        return steps.image

    def _is_for(
        self,
        image: str,
        request: BuildRequest,
        program: Sequence[str],
        environment: dict[str, str],
    ) -> bool:
        """Tell whether an image is for the platform that was asked for.

        What begins with nothing is found in the cache whatever platform it was built for.
        """
        stages = read_dockerfile(request).needed(request.target)
        if all(stage.base.lower() != "scratch" for stage in stages):
            return True
        words = {"buildah": ["inspect", "--type", "image", "--format", "{{.OCIv1.Architecture}}"]}
        podman = ["image", "inspect", "--format", "{{.Architecture}}"]
        argv = [*program, *words.get(self.name, podman), image]
        status, said = output_of(argv, environment=environment)
        wanted = request.platform or host_platform()
        return status != 0 or said.strip() == wanted.architecture

    def open_shell(self, image: str) -> int:
        """Open a shell on this process's terminal in an image of the store.

        It is a container of its own, which is removed afterwards; the image stays as it is.

        Args:
            image: Id or name.

        Returns:
            The shell's exit status.

        Raises:
            ToolError: The builder cannot do it, or has forgotten the image.
        """
        program = [self.name, *self._storage_options({}, ignore)]
        tty = ["--tty"] if sys.stdin.isatty() else []
        if self.name == "podman":
            words = ["run", "--rm", "--interactive", *tty, "--pull=never", "--network=host"]
            return run_on_terminal([*program, *words, "--entrypoint=/bin/sh", image])
        argv = [*program, "from", "--pull-never", image]
        status, output = output_of(argv, environment={})
        if status:
            raise ToolFailedError(argv=argv, status=status, stderr=output)
        container = output.rpartition("\n")[2]
        try:
            words = ["run", *tty, *_isolation(_mode()), "--network=host", container]
            return run_on_terminal([*program, *words, "--", "/bin/sh"])
        finally:
            _remove(program, container)

    def _storage_options(self, environment: dict[str, str], report: Report) -> list[str]:
        """Return the options for storage; warn of the driver that copies everything."""
        overlay = ["--storage-driver", "overlay"]
        if _mode() == "single":
            choices = [[*overlay, "--storage-opt", "overlay.ignore_chown_errors=true"]]
        else:
            choices = [overlay, []]  # podman refuses it where it has chosen for itself before
        for options in choices:
            if _store([self.name, *options], environment).get("driver", "vfs") != "vfs":
                return options
        text = f"{self.name} uses the vfs driver here: slow, and each step takes the whole size"
        report(Note(level="warning", text=text))
        return []


def remove_containers(folder: Path) -> None:
    """Remove the working containers that a build left.

    Args:
        folder: Of the build; nothing happens when it was none of buildah or podman.
    """
    try:
        record = load((folder / _RECORD).read_bytes(), "the record of a build")
    except FileNotFoundError:
        return
    program, mark = record.need("argv").texts(), record.need("mark").text()
    environment = record.need("environment").mapping()
    root = _store(program, environment).get("root")
    for path in Path(root).glob("*-containers/*/userdata/buildah.json") if root else ():
        if mark.encode() in path.read_bytes():
            verb = ["rm"] if program[0] == "buildah" else ["rm", "--force"]
            output_of([*program, *verb, path.parents[1].name], environment=environment)


def _remove(program: Sequence[str], container: str) -> None:
    """Remove a container; what ran in it may hold its mounts for a moment yet.

    Raises:
        ToolFailedError: It stays.
    """
    argv = [*program, "rm", container]
    for pause in (0.1, 0.2, 0.4, 0.8):
        if not output_of(argv, environment={})[0]:
            return
        time.sleep(pause)
    status, output = output_of(argv, environment={})
    if status:
        raise ToolFailedError(argv=argv, status=status, stderr=output)


def _store(program: Sequence[str], environment: dict[str, str]) -> dict[str, str]:
    """Return driver and root of the store; nothing when it cannot be used."""
    name = "store" if program[0] == "buildah" else "Store"
    form = f"{{{{.{name}.GraphDriverName}}}} {{{{.{name}.GraphRoot}}}}"
    status, output = output_of([*program, "info", "--format", form], environment=environment)
    driver, _, root = output.rpartition("\n")[2].partition(" ")
    return {} if status else {"driver": driver, "root": root}


class StepLog:
    """Reads the lines that buildah and podman print.

    Args:
        dockerfile: What they build.
        target: The stage they stop at; empty means the last.
        report: Gets the events.
        wording: Of the builder.
    """

    def __init__(
        self, dockerfile: Dockerfile, target: str, report: Report, wording: Wording = BUILDAH
    ) -> None:
        self._wording = wording
        if dockerfile.syntax:
            text = f"This builder does not look at '# syntax={one_line(dockerfile.syntax)}'"
            report(Note(level="warning", text=text))
        self._steps = Steps(dockerfile.needed(target), report)
        self._number = 0
        self._place = ("", 0, 0)
        self._is_over = False
        self._error = ""
        self._base = ""
        self.good: tuple[str, int] | None = None
        """The image of the last good step of this stage, and its number."""
        self.image = ""
        """The id of what was built, which is the builder's last word."""

    def line(self, text: str) -> None:
        """Take the next line."""
        if self._is_over and _IMAGE_ID.fullmatch(text):
            self.image = text
            return
        step = self._wording.step.fullmatch(text)
        if step and self._is_next(step[1] or "", int(step[2]), int(step[3])):
            self._begin_step(step[4])
        elif self._wording.cached.fullmatch(text) and self._number:
            self._steps.cached(self._number)
        elif result := self._wording.result.fullmatch(text):
            self._finish_step()
            if result[1]:
                self.good = (result[1], self._number)
        elif failed := _ERROR.fullmatch(text):
            self._error = failed[1] or failed[2]
            if self._number and failed[2]:  # a program of a step may say so of itself
                self._steps.output(self._number, text)
        elif self._error and not self._number:
            self._error = f"{self._error} {text}"[:_MAX_ERROR]  # such as what git said
        elif not self._wording.noise.fullmatch(text):
            self._steps.output(self._number, text)

    def error(self, fallback: str) -> BackendError:
        """Return the error of a build that failed.

        Args:
            fallback: What is known of it, for when no line was an error.
        """
        said = _ERROR.fullmatch(fallback)
        why = self._error or (said and (said[1] or said[2])) or fallback
        if self._number:
            self._steps.failed(self._number, why)
        return self._steps.error(why)

    def close(self) -> None:
        """Take note that the build ended well."""
        self._finish_step()

    def _begin_step(self, instruction: str) -> None:
        self._finish_step()
        if self._base:  # a base image is good once something is done with it
            self.good = (self._base, self._number)
        base = _BASE.match(instruction)
        self._base = base[1] if base and base[1] != "scratch" else ""
        if base:
            self.good = None
        self._number = self._steps.add(instruction)
        self._is_over = False
        self._steps.begin(self._number)

    def _finish_step(self) -> None:
        self._is_over = True
        if self._number:
            self._steps.done(self._number)

    def _is_next(self, stage: str, number: int, total: int) -> bool:
        """Tell whether a STEP line can be the builder's: a program may print one as well."""
        before = self._place
        follows = number == before[1] + 1 and (stage, total) == (before[0], before[2])
        if follows or number == 1:
            self._place = (stage, number, total)
            return True
        return False


def build_options(request: BuildRequest, mode: str) -> list[str]:
    """Return the options for a request.

    Args:
        request: What to build.
        mode: ``root``, ``subordinate`` or ``single``: which ids the caller has.
    """
    return [
        *_isolation(mode),
        *("--layers", "--force-rm"),
        *("--network", request.network or "host"),
        *each("--build-arg", assignments(request.build_args)),
        *each("--label", assignments(request.labels)),
        *each("--secret", request.secrets),
        *each("--ssh", request.ssh),
        *flag("--target", request.target),
        *flag("--platform", request.platform),
        *(["--no-cache"] if request.no_cache else []),
        *(["--pull"] if request.pull else []),
        *(["--tls-verify=false"] if request.plain_http else []),
        *flag("--authfile", request.auth_folder and request.auth_folder / "config.json"),
        *flag("--timestamp", request.source_date_epoch),
        *flag("--file", request.dockerfile),
    ]


def export_options(program: str, image: str, layout: Path, *, compressed: bool) -> list[str]:
    """Return the words that write an image as an OCI layout."""
    if program == "buildah":
        plain = [] if compressed else ["--disable-compression"]
        return ["push", "--quiet", *plain, image, f"oci:{layout}:latest"]
    plain = [] if compressed else ["--uncompressed"]
    return ["save", "--quiet", *plain, "--format", "oci-dir", "-o", str(layout), image]


def _isolation(mode: str) -> list[str]:
    """Return the options that say what RUN, and a shell, runs in."""
    if mode != "single":
        return ["--isolation", "chroot"]
    return ["--isolation", "rootless", *flag("--runtime", find_program("runc", "crun"))]


def _mode() -> str:
    return read_caller(find_map_tools()).mode


def _has_runtime_folder() -> bool:
    return os.geteuid() == 0 or bool(os.environ.get("XDG_RUNTIME_DIR"))


def _environment(program: str, request: BuildRequest, folder: Path) -> dict[str, str]:
    """Return the variables of the builder: its temporary files go into our folder.

    But without a runtime folder, a rootless podman keeps its state below TMPDIR, and looks for
    it there ever after.
    """
    variables = {"BUILDAH_FORMAT": "oci"}
    if _has_runtime_folder() or program == "buildah":
        variables["TMPDIR"] = str(folder)
    if not _has_runtime_folder() and program == "buildah":
        place = folder / "run"
        place.mkdir(mode=0o700)
        variables["XDG_RUNTIME_DIR"] = str(place)
    if request.source_date_epoch is not None:
        variables["SOURCE_DATE_EPOCH"] = str(request.source_date_epoch)
    return variables
