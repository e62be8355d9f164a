"""How to get at registries: logins, trust, proxies, mirrors, in one value."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.errors import AuthenticationError, NetworkError, NotFoundError
from backend.escape import one_line
from backend.registry.client import RegistryClient
from backend.registry.credentials import Credentials
from backend.registry.registries import Registries, load_registries
from backend.registry.secret import Secret
from backend.registry.tls import Trust
from backend.registry.transport import Transport

if TYPE_CHECKING:
    from backend.oci.source import Source
    from backend.reference import Reference

_log = logging.getLogger(__name__)

DEFAULT_LIBRARY = "https://library.sylabs.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the command line, the environment and this machine's files say.

    Attributes:
        credentials: Where logins are looked up.
        trust: Which certificates are accepted.
        plain_http: Talk HTTP.
        registries: Mirrors, blocks and short names.
        library: Address of the Sylabs library for ``library://``.
        library_token: Who we are there; empty for nobody.
    """

    credentials: Credentials = field(default_factory=Credentials)
    trust: Trust = field(default_factory=Trust)
    plain_http: bool = False
    registries: Registries = field(default_factory=load_registries)
    library: str = DEFAULT_LIBRARY
    library_token: Secret = field(default_factory=lambda: Secret(""))

    def client(self) -> RegistryClient:
        """Return a client, to be used as an async context manager."""
        return RegistryClient(
            credentials=self.credentials,
            plain_http=self.plain_http,
            transport=Transport(trust=self.trust),
            registries=self.registries,
        )


async def find_short_name(
    name: str, access: Access, *, memory: Source | None = None
) -> Reference | None:
    """Return the image that a name without a registry means, by ``registries.conf``.

    An alias counts as it stands; of the registries to search, the first that has the image.

    Args:
        name: Such as ``tools:1.0``.
        access: Holds the rules.
        memory: What is asked instead of the registries, where there is no network.

    Returns:
        None where the rules say nothing of the name.

    Raises:
        NotFoundError: No registry to search has it.
        UsageError: It is no name.
    """
    candidates = access.registries.expand(name)
    if len(candidates) < 2:
        return next(iter(candidates), None)
    async with access.client() as client:
        for candidate in candidates:
            try:
                if memory:
                    await memory.fetch_manifest(candidate)
                    return candidate
                if await client.find_digest(candidate):
                    return candidate
            except (AuthenticationError, NetworkError, NotFoundError) as error:
                _log.info("%s: %s", candidate, error)
    searched = ", ".join(access.registries.search)
    raise NotFoundError(
        f"there is no {one_line(name)}",
        why=f"these were searched: {searched}",
        hint="write its registry before the name: docker://HOST/NAME[:TAG]",
    )
