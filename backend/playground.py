"""A folder in which everything can be tried: a registry with images and a login, and a home.

``sifdeck try`` and the labs work in one.  Programs that get :attr:`Playground.environment`
keep their logins, jobs and settings inside the folder, and find nothing of the user's own.

::

    registry/   the folder of the embedded registry
    config/     logins and settings of whoever plays here
    state/      jobs
    cache/      blobs and conversions
    work/       where images are written
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backend.errors import NetworkError
from backend.labregistry.access import htpasswd_line
from backend.labregistry.server import Options, serving
from backend.labregistry.storage import Storage, StoredManifest
from backend.sample import SampleImage, make_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

USER, PASSWORD = "learner", "open-sesame"
"""The login of the registry.  No secret: it is on loopback, and every lab prints it."""

PROJECT = "lab"
"""The images are ``HOST:PORT/lab/NAME:TAG``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playground:
    """A folder to play in, while its registry is served.

    Attributes:
        folder: Everything is in it.
        registry: ``HOST:PORT``.
    """

    folder: Path
    registry: str

    @property
    def work(self) -> Path:
        """The folder in which commands are typed."""
        return self.folder / "work"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for every program that runs here, the caller's own among them."""
        return os.environ | {
            "SIFDECK_CACHE_DIR": str(self.folder / "cache"),
            "SIFDECK_STATE_DIR": str(self.folder / "state"),
            "SIFDECK_CONFIG_DIR": str(self.folder / "config"),
            "SINGULARITY_CONFIGDIR": str(self.folder / "config"),
            # A desktop's keyring would keep the login when the folder has gone.
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }

    def reference(self, image: str) -> str:
        """Return the address of an image such as ``hello:1.0``."""
        return f"docker://{self.registry}/{PROJECT}/{image}"


@contextlib.contextmanager
def playing(folder: Path, *, port: int = 0) -> Iterator[Playground]:
    """Serve the registry of a folder for as long as the block runs.

    What is missing in the folder is made, the images too.

    Args:
        folder: Made when it is not there.
        port: Preferred; another is taken when somebody else has it.

    Raises:
        ExistsError: Another process serves this folder's registry.
        NotFoundError: This machine has no shell to make an image of.
    """
    for name in ("registry", "config", "state", "cache", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    root = folder / "registry"
    if not (root / "blobs").is_dir():
        store_images(root, make_samples())
    options = Options(root=root, port=port, htpasswd=htpasswd_line(USER, PASSWORD))
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(serving(options))
        except NetworkError:
            if not port:
                raise
            address = stack.enter_context(serving(replace(options, port=0)))
        yield Playground(folder=folder, registry=address)


def remove_playground(folder: Path) -> None:
    """Delete a folder that nobody plays in any more, with what containers left in its cache.

    Raises:
        LaunchError: Unpacked layers belong to subordinate ids, and cannot be reached any more.
    """
    from backend.runtime.extraction import remove_extracted
    from backend.runtime.host import find_map_tools
    from backend.runtime.identity import read_caller

    extracted = folder / "cache" / "rootfs"
    if extracted.is_dir():
        remove_extracted(read_caller(find_map_tools() if os.getuid() else ()), extracted)
    shutil.rmtree(folder)


def store_images(root: Path, images: Mapping[str, SampleImage]) -> None:
    """Put images into the folder of a registry that nobody serves.

    Raises:
        ExistsError: Somebody serves it.
    """
    storage = Storage(root)
    try:
        for reference, image in images.items():
            name, _, tag = reference.partition(":")
            _store(storage, f"{PROJECT}/{name}", tag, image)
    finally:
        storage.close()


def _store(storage: Storage, name: str, tag: str, image: SampleImage) -> None:
    for digest, data in image.blobs.items():
        if not storage.has_blob(name, digest):
            upload = storage.start_upload(name)
            upload.append(data)
            storage.finish_upload(upload, digest)
    manifest = StoredManifest(digest=image.digest, media_type=image.media_type, data=image.manifest)
    storage.put_manifest(name, manifest, tag=tag)
