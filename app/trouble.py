"""An error as the deck shows and reports it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import ExitCode, UsageError
from backend.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.errors import BackendError, ToolError
    from backend.events import Failed

_SECRETS = (
    (re.compile(r"(?i)(authorization\s*[:=]\s*(?:basic|bearer)?\s*)\S+"), r"\1***"),
    (re.compile(r"(?<=://)[^/@\s]+@"), "***@"),
    (
        re.compile(r"(?i)\b((?:\w*(?:password|passwd|token|secret|api_?key))\s*[:=]\s*)\S+"),
        r"\1***",
    ),
    (re.compile(r"(?i)(--?(?:docker-)?(?:password|token)[ =])\S+"), r"\1***"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "***"),  # a JSON web token
)


def without_secrets(text: str) -> str:
    """Return text with whatever looks like a credential replaced by ``***``."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What went wrong.

    Attributes:
        title: What was being done.
        what: What happened.
        why: Its cause; empty when nobody knows.
        kept: What of the work is still there.
        hint: What to do next.
        detail: The command line, the job, where its log is.
        log: The last lines that were printed, for the report.
        job: Number of the job; 0 when it was none.
        registry: Which wants a login; empty when none is missing.
    """

    title: str
    what: str
    why: str = ""
    kept: str = ""
    hint: str = ""
    detail: str = ""
    log: Sequence[str] = ()
    job: int = 0
    registry: str = ""

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Name and text of each part that there is."""
        named = (
            ("", self.what),
            ("Why", self.why),
            ("Kept", self.kept),
            ("Next", self.hint),
            ("Raw", self.detail),
        )
        return [(name, without_secrets(text)) for name, text in named if text]

    def report(self) -> str:
        """Return the text to send to somebody who helps; no secret is in it."""
        lines = [
            f"sifdeck {__version__}, Python {platform.python_version()}, {platform.platform()}",
            self.title,
            *(f"{name + ':' if name else '':6}{text}" for name, text in self.parts),
            *(["", "last lines:", *self.log] if self.log else []),
        ]
        return without_secrets("\n".join(lines))


def trouble_of(error: BackendError, title: str, detail: str = "") -> Trouble:
    """Return an error of the back end as trouble."""
    return Trouble(
        title=title,
        what=error.message,
        why=error.why,
        kept=error.kept,
        hint=error.hint,
        detail=detail,
    )


def trouble_of_event(
    event: Failed, title: str, *, detail: str, job: int, log: Sequence[str]
) -> Trouble:
    """Return the end of a job as trouble."""
    return Trouble(
        title=title,
        what=event.message,
        why=event.why,
        kept=event.kept,
        hint=event.hint,
        detail=detail,
        job=job,
        log=log,
        registry=_registry_of(title) if event.exit_code == ExitCode.AUTHENTICATION else "",
    )


def _registry_of(title: str) -> str:
    """Return the registry in what a job was called, ``pull failed: docker://ghcr.io/x``."""
    from backend.reference import parse

    for word in title.split():
        try:
            reference = parse(word if "://" in word else f"docker://{word}")
        except UsageError:
            continue
        if "/" in word:
            return reference.registry
    return ""


def said_of(error: ToolError, title: str) -> Trouble:
    """Return what a command of ours printed about its failure as trouble.

    The command line prints ``ERROR:``, ``why:``, ``kept:`` and ``next:`` lines; anything else
    that it printed is the detail.
    """
    printed = getattr(error, "stderr", "") or error.message
    found = {"error": "", "why": "", "kept": "", "next": ""}
    detail = []
    for line in printed.splitlines():
        name, colon, text = line.partition(":")
        if colon and name.lower() in found:
            found[name.lower()] = text.strip()
        elif line.strip():
            detail.append(line)
    return Trouble(
        title=title,
        what=found["error"] or error.message,
        why=found["why"],
        kept=found["kept"],
        hint=found["next"],
        detail="\n".join(detail[-20:]),
    )
