"""``run --profile NAME``: flags out of ``config.toml``, below those that were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.runflags import OPTIONS, parse_plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.cli.runflags import Flags


def with_profile(flags: Flags) -> Flags:
    """Return flags with those of the profile that they name: lists before theirs, texts below.

    Raises:
        UsageError: There is no such profile, or it holds what is no flag of ``run``.
    """
    name = str(flags["profile"])
    if not name:
        return flags
    from backend.config import load_config, nearest
    from backend.errors import UsageError
    from backend.escape import one_line
    from backend.paths import config_home, site_config

    profiles = load_config(config_home() / "config.toml", site_config()).profiles
    if name not in profiles:
        names = ", ".join(profiles) or "none"
        raise UsageError(
            f"there is no profile {one_line(name, limit=60)!r}{nearest(name, profiles)}",
            hint=f"config.toml has: {names}",
        )
    return _merged(flags, parse_profile(name, profiles[name]))


def parse_profile(name: str, words: Sequence[str]) -> Flags:
    """Return the flags of a profile.

    Raises:
        UsageError: It holds what is no flag of ``run``.
    """
    from backend.errors import UsageError

    parsed = parse_plainly([*words, "IMAGE"])
    if parsed is None or parsed[1] != ["IMAGE"] or parsed[0]["profile"]:
        raise UsageError(
            f"profile {name!r} holds what is no flag of run", hint="sifdeck run --help names them"
        )
    return parsed[0]


def _merged(given: Flags, profile: Flags) -> Flags:
    merged = dict(given)
    for option in OPTIONS:
        ours, theirs = given[option.dest], profile[option.dest]
        if isinstance(ours, tuple) and isinstance(theirs, tuple):
            merged[option.dest] = (*theirs, *ours)
        else:
            merged[option.dest] = ours or theirs
    return merged
