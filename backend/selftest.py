"""The self-test of an installation: everything that is promised, done once, for real.

Each probe runs ``sifdeck`` as a user would, in a :mod:`backend.playground`, and looks at what
came of it.  What a machine cannot do, because no builder is installed, is said and is no failure.
"""

from __future__ import annotations

import filecmp
import json
import shlex
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backend.errors import ExitCode
from backend.escape import one_line, quoted
from backend.playground import PASSWORD, PROJECT, USER
from backend.program import OURSELVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backend.playground import Playground

_COMMAND_S = 60.0
_IMAGE = "hello_1.0.oci.sif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one probe.

    Attributes:
        name: One or two words.
        state: ``skipped`` is no failure.
        text: A sentence: what was seen, what went wrong, or why it was not tried.
        seconds: How long it took.
    """

    name: str
    state: Literal["ok", "failed", "skipped"]
    text: str
    seconds: float


class _Failed(Exception):  # noqa: N818  (never leaves this module)
    """A probe did not see what it should."""


class _Skipped(Exception):  # noqa: N818  (never leaves this module)
    """A probe cannot be tried on this machine."""


def check_everything(ground: Playground) -> Iterator[Outcome]:
    """Yield the outcome of each probe as soon as it is known; each builds on those before."""
    for name, probe in _PROBES:
        started = time.monotonic()
        state: Literal["ok", "failed", "skipped"] = "ok"
        try:
            text = probe(ground)
        except _Failed as failed:
            state, text = "failed", str(failed)
        except _Skipped as skipped:
            state, text = "skipped", str(skipped)
        yield Outcome(name=name, state=state, text=text, seconds=time.monotonic() - started)


def _sifdeck(
    ground: Playground, *argv: str, status: int = 0, stdin: str = "", expect: str = ""
) -> str:
    """Run a command; return what it printed.

    Raises:
        _Failed: It ended otherwise, or did not print what was expected.
    """
    line = shlex.join(("sifdeck", *argv))
    try:
        done = subprocess.run(
            [*OURSELVES, *argv],
            check=False,
            cwd=ground.work,
            env=ground.environment,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _Failed(f"`{line}` took longer than {_COMMAND_S:g} s") from error
    if done.returncode != status:
        said = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise _Failed(f"`{line}` ended with {done.returncode}: {one_line(said)}")
    if expect not in done.stdout:
        raise _Failed(f"`{line}` did not print {quoted(expect)} but {quoted(done.stdout)}")
    return done.stdout


def _refused(ground: Playground) -> str:
    denied = ExitCode.AUTHENTICATION
    _sifdeck(ground, "pull", ground.reference("hello:1.0"), status=denied)
    return "without a login the registry gives nothing"


def _login(ground: Playground) -> str:
    address = f"docker://{ground.registry}"
    secret = ("-u", USER, "--password-stdin", address)
    _sifdeck(ground, "registry", "login", *secret, stdin="wrong\n", status=ExitCode.AUTHENTICATION)
    _sifdeck(ground, "registry", "login", *secret, stdin=f"{PASSWORD}\n")
    _sifdeck(ground, "registry", "list", expect=ground.registry)
    return f"{USER} at {ground.registry}; a wrong password was refused"


def _pull(ground: Playground) -> str:
    _sifdeck(ground, "pull", ground.reference("hello:1.0"))
    return f"{_IMAGE}, {(ground.work / _IMAGE).stat().st_size / 1e6:.1f} MB"


def _look_inside(ground: Playground) -> str:
    listed = json.loads(_sifdeck(ground, "sif", "list", "--json", _IMAGE))
    types = [entry["type"] for entry in listed]
    if types != ["OCI.Blob"] * 3 + ["OCI.RootIndex"]:
        raise _Failed(f"{_IMAGE} holds {types}")
    _sifdeck(ground, "inspect", _IMAGE, expect="org.opencontainers.image.version")
    return f"{len(types)} objects, configuration and labels"


def _reproduce(ground: Playground) -> str:
    _sifdeck(ground, "pull", "again.sif", ground.reference("hello:1.0"))
    if not filecmp.cmp(ground.work / "again.sif", ground.work / _IMAGE, shallow=False):
        raise _Failed("the same image gave other bytes the second time")
    return "the same image gives the same bytes"


def _run(ground: Playground) -> str:
    _sifdeck(ground, "run", _IMAGE, "Ada", expect="Hello, Ada!")
    _sifdeck(ground, "run", _IMAGE, "Ada", "7", status=7)
    return "ENTRYPOINT, argument and exit status"


def _exec(ground: Playground) -> str:
    _sifdeck(ground, "exec", ground.reference("shell:1.0"), "id", "-u")
    _sifdeck(ground, "exec", _IMAGE, "id", "-un", expect=USER)
    return "straight from the registry, and as the image's USER"


def _push(ground: Playground) -> str:
    _sifdeck(ground, "push", _IMAGE, ground.reference("pushed:1.0"))
    _sifdeck(ground, "tags", ground.reference("pushed"), expect="1.0")
    return "the file is an image in the registry"


def _build(ground: Playground) -> str:
    from backend.build.detect import candidates, install_hint

    if not any(candidate.make for candidate in candidates()):
        raise _Skipped(f"no builder is here ({install_hint()})")
    base = f"{ground.registry}/{PROJECT}/shell:1.0"
    (ground.work / "Dockerfile").write_text(f'FROM {base}\nENTRYPOINT ["/bin/echo", "built:"]\n')
    _sifdeck(ground, "build", "--no-https", "built.oci.sif", "Dockerfile")
    _sifdeck(ground, "run", "built.oci.sif", "yes", expect="built: yes")
    return "a Dockerfile became an image, and ran"


def _logout(ground: Playground) -> str:
    _sifdeck(ground, "registry", "logout", f"docker://{ground.registry}")
    _sifdeck(ground, "pull", "-F", ground.reference("hello:2.0"), status=ExitCode.AUTHENTICATION)
    return "the login is gone"


_PROBES: tuple[tuple[str, Callable[[Playground], str]], ...] = (
    ("refusal", _refused),
    ("login", _login),
    ("pull", _pull),
    ("look inside", _look_inside),
    ("reproduce", _reproduce),
    ("run", _run),
    ("exec", _exec),
    ("push", _push),
    ("build", _build),
    ("logout", _logout),
)
