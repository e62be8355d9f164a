"""Jobs as rows of a table, their layers and steps as rows of another, and either in a line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.words import age, bar, duration, percent, size
from backend.escape import one_line
from widgets.roster import Column

if TYPE_CHECKING:
    from app.board import JobRow
    from app.desk import Desk
    from backend.progress import Progress

_TONES = {"failed": "bad", "lost": "bad", "cancelled": "warn", "running": "good", "queued": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One line of a job's detail: a layer, a phase or a step.

    Attributes:
        key: What it is, so that the cursor stays.
        name: What it is called.
        size: Bytes; 0 when it has none.
        state: What becomes of it.
        fraction: How far it is; None when nobody knows.
        note: What else there is to say.
    """

    key: str
    name: str
    size: int
    state: str
    fraction: float | None
    note: str = ""


def parts_of(progress: Progress, *, is_active: bool = True) -> list[Part]:
    """Return a job's layers, then its phases and steps, in order; none runs in a job that ended."""
    parts = _parts(progress)
    if is_active:
        return parts
    return [replace(one, state="stopped") if one.state in _GOING else one for one in parts]


_GOING = {"running", "downloading", "uploading", "verifying", "retry", "waiting"}


def _parts(progress: Progress) -> list[Part]:
    layers = progress.layers
    found = [
        Part(
            key=f"layer{blob.index}",
            name=f"{blob.index + 1}/{len(layers)} {blob.digest.partition(':')[2][:12]}",
            size=blob.size,
            state=blob.state,
            fraction=1.0
            if blob.state in {"done", "exists"}
            else (blob.done / blob.size if blob.size else None),
            note=blob.note,
        )
        for blob in layers
    ]
    found += [
        Part(
            key=f"step{step.number}",
            name=f"{step.number}/{step.total} {step.name}",
            size=0,
            state=step.state,
            fraction=None,
            note=step.error or (duration(step.seconds) if step.seconds else ""),
        )
        for _, step in sorted(progress.steps.items())
    ]
    found += [
        Part(
            key=f"phase-{phase.name}",
            name=phase.name,
            size=phase.total if phase.unit == "bytes" else 0,
            state=phase.state,
            fraction=1.0
            if phase.state == "done"
            else (min(phase.done / phase.total, 1.0) if phase.total else None),
        )
        for phase in progress.phases.values()
    ]
    return found


def _progress_text(row: JobRow) -> str:
    progress = row.progress
    if not row.is_active:
        return ""
    if not row.job.process.is_here:
        return f"on {row.job.host}"  # nobody here can know how far it is
    if row.state == "queued" and row.job.after:
        return f"after {' '.join(f'#{number}' for number in row.job.after)}"
    if progress is None:
        return ""
    fraction = progress.fraction
    if fraction is None:
        return progress.phase.name if progress.phase else ""
    return f"{bar(fraction, 12)} {percent(fraction):>4}"


def job_columns(desk: Desk) -> tuple[Column[JobRow], ...]:
    """Return the columns of a list of jobs."""
    return (
        Column(
            key="number",
            title="ID",
            width=5,
            text=lambda row: f"#{row.job.number}",
            order=lambda row: row.job.number,
        ),
        Column(key="verb", title="VERB", width=7, text=lambda row: row.job.verb),
        Column(
            key="title",
            title="WHAT",
            width=16,
            stretch=True,
            text=lambda row: short_title(row.job.title),
        ),
        Column(
            key="state",
            title="STATE",
            width=9,
            text=lambda row: row.state.upper() if row.state in {"failed", "lost"} else row.state,
            tone=lambda row: _TONES.get(row.state, ""),
        ),
        Column(key="progress", title="PROGRESS", width=17, rank=2, text=_progress_text),
        Column(
            key="elapsed",
            title="TIME",
            width=7,
            right=True,
            rank=1,
            text=lambda row: duration(row.job.elapsed_s(desk.now())),
            order=lambda row: row.job.elapsed_s(desk.now()),
        ),
        Column(
            key="created",
            title="BEGUN",
            width=8,
            rank=3,
            text=lambda row: age(desk.now() - row.job.created),
            order=lambda row: -row.job.created,
        ),
    )


PART_COLUMNS: tuple[Column[Part], ...] = (
    Column(key="name", title="PART", width=20, stretch=True, text=lambda part: part.name),
    Column(
        key="size",
        title="SIZE",
        width=6,
        right=True,
        text=lambda part: size(part.size) if part.size else "",
    ),
    Column(
        key="state",
        title="STATE",
        width=11,
        text=lambda part: part.state,
        tone=lambda part: _TONES.get(part.state, ""),
    ),
    Column(
        key="progress",
        title="PROGRESS",
        width=23,
        text=lambda part: f"{bar(part.fraction, 18)} {percent(part.fraction):>4}",
    ),
    Column(key="note", title="", width=22, rank=1, text=lambda part: part.note),
)


def job_line(row: JobRow) -> str:
    """Return where a job stands, on one line."""
    progress = row.progress
    title = f"{row.job.verb} {one_line(short_title(row.job.title), limit=60)}"
    return "  ".join([title, *progress_words(progress)]) if progress else title


def short_title(title: str) -> str:
    """Return what a job works on without the transport that nearly all have."""
    return title.removeprefix("docker://")


def progress_words(progress: Progress) -> list[str]:
    """Return how far an operation is: bar, bytes, speed and what it does."""
    fraction = progress.fraction
    parts = []
    if fraction is not None:
        parts.append(f"{bar(fraction, 14)} {percent(fraction):>4}")
    if progress.total and progress.done < progress.total:
        parts.append(f"{size(progress.done)}/{size(progress.total)}")
        if progress.rate:
            parts.append(f"{size(progress.rate)}/s {duration(progress.eta_s)}")
    elif progress.step:
        parts.append(one_line(progress.step.name, limit=40))
    elif progress.phase:
        parts.append(progress.phase.name)
    return parts
