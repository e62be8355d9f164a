"""Every exception the back end raises on purpose.

* BackendError
  x UsageError             a reference, option or setting that makes no sense
    + SeveralImagesError   a reference that more than one image answers to
  x FormatError            bytes that are not what they should be
  x ExistsError            a target that is there already
  x NotFoundError          an image, tag, blob, file or job that is not there
  x AuthenticationError    credentials missing, refused or expired
  x NetworkError           no connection, or one that broke too often
    + RegistryError        the registry answered, but not with what was asked
  x VerificationError      bytes that do not have the digest or size they should
  x SpaceError             no room on a file system, or no quota left
  x LaunchError            the host could not start the container
  x BuildError             an instruction of a Dockerfile failed
  x ToolError              a program we ran
    + ToolMissingError     not on PATH
    + ToolFailedError      exit status other than 0
    + ToolTimeoutError     took longer than allowed

The text of each is a sentence for a user.  Beside it stand three more, all optional,
which the command line and the deck show below it: ``why`` it happened, what was ``kept``
of the work, and the ``hint`` that says what to do next.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar


class ExitCode:
    """Exit statuses of ``sifdeck``; ``run``, ``exec`` and ``shell`` add the container's own.

    Plain numbers: importing enum costs a start of a container 5 ms.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    AUTHENTICATION = 10
    NOT_FOUND = 11
    NO_SPACE = 12
    NETWORK = 13
    VERIFICATION = 14
    RUNTIME = 15
    LAUNCH_FAILED = 125
    CANNOT_EXECUTE = 126
    COMMAND_NOT_FOUND = 127


class BackendError(Exception):
    """Base of every error below; its text is fit to show to a user.

    Args:
        message: What happened, one sentence.
        why: The cause, as far as it is known.
        kept: What of the work is still there and will be used by the next try.
        hint: What the user, or an administrator, can do; may name a command.
    """

    exit_code: ClassVar[int] = ExitCode.FAILED

    def __init__(self, message: str, *, why: str = "", kept: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.kept = kept
        self.hint = hint


def explain(error: BackendError) -> str:
    """Return the lines that tell a user what happened, why, what was kept and what to do.

    Whatever an error quotes, nothing in it reaches a terminal as an escape sequence.
    """
    from backend.escape import printable

    labelled = (("why", error.why), ("kept", error.kept), ("next", error.hint))
    lines = [
        f"ERROR:   {error.message}",
        *(f"{label + ':':8} {text}" for label, text in labelled if text),
    ]
    return "\n".join(printable(line) for line in lines)


class UsageError(BackendError):
    """A reference, option or setting that makes no sense."""

    exit_code = ExitCode.USAGE


class SeveralImagesError(UsageError):
    """A reference that more than one image answers to.

    Args:
        message: As for :class:`BackendError`, as are ``why`` and ``hint``.
        choices: For each image the reference that means it alone, and a few words about it.
    """

    def __init__(self, message: str, *, why: str, hint: str, choices: Mapping[str, str]) -> None:
        super().__init__(message, why=why, hint=hint)
        self.choices = dict(choices)


class FormatError(BackendError):
    """Bytes do not hold what their name, media type or magic promises.

    Args:
        message: What is wrong, in the user's words.
        offset: Where, in bytes from the start of the file or stream; None where it is JSON.
        why: As for :class:`BackendError`.
        hint: As for :class:`BackendError`.
    """

    def __init__(
        self, message: str, *, offset: int | None = None, why: str = "", hint: str = ""
    ) -> None:
        place = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{message}{place}", why=why, hint=hint)
        self.offset = offset


class ExistsError(BackendError):
    """The target is there already and may not be overwritten."""


class NotFoundError(BackendError):
    """An image, tag, blob, file or job that is not there."""

    exit_code = ExitCode.NOT_FOUND


class AuthenticationError(BackendError):
    """Credentials are missing, refused or expired."""

    exit_code = ExitCode.AUTHENTICATION


class NetworkError(BackendError):
    """No connection could be made, or it broke more often than we try again.

    Args:
        message: As for :class:`BackendError`.
        why: As for :class:`BackendError`.
        kept: As for :class:`BackendError`.
        hint: As for :class:`BackendError`.
        transient: Whether the same request may succeed a moment later.
    """

    exit_code = ExitCode.NETWORK

    def __init__(
        self,
        message: str,
        *,
        why: str = "",
        kept: str = "",
        hint: str = "",
        transient: bool = False,
    ) -> None:
        super().__init__(message, why=why, kept=kept, hint=hint)
        self.transient = transient


class RegistryError(NetworkError):
    """The registry answered, but not with what was asked for.

    Args:
        message: What it answered, in the user's words.
        status: The HTTP status; some of them are worth another try.
        why: What the body said, bounded and escaped.
        hint: As for :class:`BackendError`.
        retry_after_s: How many seconds the registry asked us to wait; None when it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        why: str = "",
        hint: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        transient = status in {408, 425, 429, 500, 502, 503, 504}
        super().__init__(message, why=why, hint=hint, transient=transient)
        self.status = status
        self.retry_after_s = retry_after_s


class VerificationError(BackendError):
    """Bytes do not have the digest or size that they should."""

    exit_code = ExitCode.VERIFICATION


class SpaceError(BackendError):
    """No room is left on a file system, or no quota."""

    exit_code = ExitCode.NO_SPACE


class LaunchError(BackendError):
    """The host could not start the container; the hint names what is missing and who can fix it.

    Args:
        message: What could not be done.
        why: As for :class:`BackendError`.
        kept: As for :class:`BackendError`.
        hint: As for :class:`BackendError`.
        status: The exit status to end with: 125, or 126 and 127 for the command itself.
    """

    exit_code = ExitCode.LAUNCH_FAILED

    def __init__(
        self,
        message: str,
        *,
        why: str = "",
        kept: str = "",
        hint: str = "",
        status: int = ExitCode.LAUNCH_FAILED,
    ) -> None:
        super().__init__(message, why=why, kept=kept, hint=hint)
        self.status = status


class BuildError(BackendError):
    """An instruction of a Dockerfile failed; the message names it and its line."""


class ToolError(BackendError):
    """A program that we ran did not do its work."""

    def __init__(self, message: str, *, argv: Sequence[str], why: str = "", hint: str = "") -> None:
        super().__init__(message, why=why, hint=hint)
        self.argv = tuple(argv)


class ToolMissingError(ToolError):
    """The program is not on PATH."""


class ToolTimeoutError(ToolError):
    """The program took longer than it was allowed and was stopped."""


class ToolFailedError(ToolError):
    """The program ended with a status other than 0."""

    def __init__(self, *, argv: Sequence[str], status: int, stderr: str, stdout: str = "") -> None:
        last = stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        super().__init__(f"{argv[0]} ended with status {status}: {last[0]}", argv=argv)
        self.status = status
        self.stderr = stderr
        self.stdout = stdout
