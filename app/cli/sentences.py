"""Events in words: what the bars and the plain lines have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.escape import one_line, printable
from backend.events import Event, Finished, Note, Output, Phase, Resolved, Started, Step

if TYPE_CHECKING:
    from backend.progress import Progress


def headline(event: Event) -> str:
    """Return the sentence for an event that concerns the whole operation; empty for none."""
    match event:
        case Started():
            target = f" -> {one_line(event.target)}" if event.target else ""
            return f"{event.verb.capitalize()} {one_line(event.title)}{target}"
        case Resolved():
            kind = f"{one_line(event.platform)}, " if event.platform else ""  # an artifact has none
            described = f"({kind}{size_text(event.total)})"
            return f"{one_line(event.reference)} is {short_digest(event.digest)} {described}"
        case Finished(path=path) if path:
            size = f" ({size_text(event.size)})" if event.size else ""  # of a folder unknown
            return f"Complete: {one_line(path)}{size}"
        case _:
            return ""


def note_line(note: Note) -> str:
    """Return a note as SingularityCE prints its messages."""
    label = "INFO:   " if note.level == "info" else "WARNING:"
    return f"{label} {printable(note.text)}"


def step_lines(step: Step) -> list[str]:
    """Return a build step's name, and what became of it, in BuildKit's plain form."""
    total = f"/{step.total}" if step.total else ""
    head = f"#{step.number} [{step.number}{total}] {one_line(step.name)}"
    match step.state:
        case "waiting" | "running":
            return [head]
        case "cached":
            return [head, f"#{step.number} CACHED"]
        case "done":
            return [head, f"#{step.number} DONE {step.seconds:.1f}s"]
        case "failed":
            where = f" (line {step.line} of the Dockerfile)" if step.line else ""
            return [head, f"#{step.number} ERROR{where}: {one_line(step.error)}"]


def output_line(output: Output) -> str:
    """Return a line of a build step's output with the step's number before it."""
    text = one_line(output.text.expandtabs())
    return f"#{output.step} {text}" if output.step else text


def phase_text(phase: Phase) -> str:
    """Return what became of a phase."""
    if phase.state == "running":
        return f"{one_line(phase.name)} ..."
    if phase.unit == "bytes" and phase.total:
        return f"{one_line(phase.name)}: done ({size_text(phase.total)})"
    return f"{one_line(phase.name)}: done"


def how_far(progress: Progress) -> str:
    """Return one line about the transfer, else the phase, else the step that runs."""
    if progress.total and progress.done < progress.total:
        eta = f", {duration(progress.eta_s)} left" if progress.eta_s is not None else ""
        return (
            f"{size_text(progress.done)} of {size_text(progress.total)} "
            f"({size_text(progress.rate)}/s{eta})"
        )
    if (phase := progress.phase) and phase.total:
        return f"{one_line(phase.name)}: {100 * phase.done // phase.total} %"
    if step := progress.step:
        return f"#{step.number} is still running: {one_line(step.name, limit=60)}"
    return ""


def size_text(size: float) -> str:
    """Return bytes as ``28.2 MB``, decimal as registries and disks count."""
    if size < 1000:
        return f"{int(size)} B"
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.95 or unit == "TB":
            break
    return f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as ``00:17``, ``04:51`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def short_digest(digest: str) -> str:
    """Return the first twelve characters of a digest's hexadecimal part."""
    return one_line(digest.partition(":")[2][:12] or digest[:12])
