"""What can be done with an image file, wherever one is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.commands import BY_ID
from app.forms import convert_form, push_form
from app.requests import CommandRequested, JobRequested, JobsRequested, RunRequested
from app.screens.view import ViewScreen
from app.words import age, short_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.commands import CommandLine
    from app.inspection import Pages
    from backend.catalog import Image

_VERIFY_S = 900.0
"""Seconds that a check may take: a gigabyte takes one, where the file system is quick."""


TRUST: Mapping[str, str] = {
    "": "not signed, and does not say where it is from",
    "source": "not signed; says where it is from (v checks its digests)",
    "signed": "signed, which was not checked or not by a known key (v)",
    "cosign": "signed by cosign, which was not checked (verify --cosign --key FILE)",
    "intact": "its digests are right; nobody signed it",
    "verified": "signed, and nothing changed since",
    "=source": "equal to what its source gives",
    "DIFFERS": "not what its source gives",
    "BAD SIG": "A SIGNATURE IS NOT VALID: do not run it, pull it again",
    "DAMAGED": "CHANGED OR DAMAGED: do not run it, pull it again",
}
"""Words of the column to what they mean."""


class ImageActions(ViewScreen):
    """The actions of a screen that shows images."""

    def chosen_images(self) -> Sequence[Image]:
        """Return what actions are about: marked images, else the one under the cursor."""
        raise NotImplementedError

    @property
    def current_image(self) -> Image | None:
        """The image under the cursor."""
        raise NotImplementedError

    def action_run(self) -> None:
        """Run the image."""
        self._request_run("run")

    def action_shell(self) -> None:
        """Open a shell in the image."""
        self._request_run("shell")

    def _request_run(self, verb: str) -> None:
        if image := self.current_image:
            self.post_message(RunRequested(image, verb))

    def action_push(self) -> None:
        """Ask where to push the image."""
        if image := self.current_image:
            self.post_message(JobRequested(push_form(image)))

    def action_convert(self) -> None:
        """Ask what to make of the image, or of all marked ones."""
        if images := tuple(self.chosen_images()):
            self.post_message(JobRequested(convert_form(images)))

    def action_verify(self) -> None:
        """Check the image, and show what comes out; several are checked by jobs."""
        commands = [_verify(image) for image in self.chosen_images()]
        if len(commands) == 1:
            self.post_message(
                CommandRequested(
                    command=commands[0], done="", shows_output=True, timeout_s=_VERIFY_S
                )
            )
        elif commands:
            self.post_message(JobsRequested([(one.argv[-1], one) for one in commands]))


def with_facts(pages: Pages, image: Image, now: float) -> Pages:
    """Return the pages of an image with what is known of it on this machine.

    Args:
        pages: Of the file.
        image: As the catalogue has it.
        now: Seconds since 1970.
    """
    facts = (
        ("here since", age(now - image.modified_ns / 1e9)),
        ("last run", age(now - image.used) if image.used else "never, as far as we know"),
        ("trust", TRUST.get(image.trust, image.trust)),
    )
    lines = [f"{name:11}{text}" for name, text in facts]
    return {**pages, "Overview": [*pages.get("Overview", ()), "", *lines]}


def _verify(image: Image) -> CommandLine:
    return BY_ID["images.verify"].command({"image": short_path(image.path)})
