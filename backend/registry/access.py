"""How to get at registries: logins, trust, proxies, mirrors, in one value."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.registry.client import RegistryClient
from backend.registry.credentials import Credentials
from backend.registry.registries import Registries, load_registries
from backend.registry.tls import Trust
from backend.registry.transport import Transport

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
    """

    credentials: Credentials = field(default_factory=Credentials)
    trust: Trust = field(default_factory=Trust)
    plain_http: bool = False
    registries: Registries = field(default_factory=load_registries)
    library: str = DEFAULT_LIBRARY

    def client(self) -> RegistryClient:
        """Return a client, to be used as an async context manager."""
        return RegistryClient(
            credentials=self.credentials,
            plain_http=self.plain_http,
            transport=Transport(trust=self.trust),
            registries=self.registries,
        )
