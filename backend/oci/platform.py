"""Platforms: ``linux/arm64/v8`` as text, the host's own, and what an index offers."""

from __future__ import annotations

import os

from backend.errors import UsageError
from backend.escape import quoted
from backend.values import Value

_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}


class Platform(Value):
    """An operating system and a processor, in the words of Go's GOOS and GOARCH.

    Attributes:
        os: ``linux``, or what else an index holds.
        architecture: ``amd64``, ``arm64`` ...
        variant: ``v7``, ``v8``; empty when none is named.
    """

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        tail = f"/{self.variant}" if self.variant else ""
        return f"{self.os}/{self.architecture}{tail}"

    def accepts(self, offered: Platform) -> bool:
        """Tell whether an image for ``offered`` is what this platform asks for.

        ``arm64`` and ``arm64/v8`` are one thing; ``arm`` takes the variants up to its own.
        """
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return False
        if self.architecture == "arm" and self.variant and offered.variant:
            return offered.variant <= self.variant
        if self.architecture == "arm64":
            return (self.variant or "v8") >= (offered.variant or "v8")
        return not self.variant or self.variant == offered.variant


def parse_platform(text: str) -> Platform:
    """Return the platform that ``linux/arm64``, ``arm64`` or ``linux/arm/v7`` names.

    Raises:
        UsageError: The text has another form.
    """
    parts = text.strip().lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(
            f"not a platform: {quoted(text, limit=60)}", hint="write it as linux/arm64"
        )
    parts[1] = _ALIASES.get(parts[1], parts[1])
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if parts[2:] else "")


def host_platform() -> Platform:
    """Return the platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)
