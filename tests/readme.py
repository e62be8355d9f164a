"""``python -m tests.readme``: write the README's section on the deck, key sheet and all."""

from __future__ import annotations

from pathlib import Path

from app import keysheet
from app.commands import actions_of

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- deck -->\n", "<!-- /deck -->\n"

TEXT = """\
## The deck

`./run` on a terminal opens it: five views over images, registries, jobs, running containers and this
host. Whatever is done there is a command line, which is shown and can be copied with `y`, in our words
and in SingularityCE's.

![Images at the left, what is inside at the right](screenshots/images-wide.png)

| | |
|---|---|
| ![Pull](screenshots/pull.png) | ![Jobs](screenshots/jobs.png) |
| ![Run](screenshots/run.png) | ![An error in its parts](screenshots/error.png) |
| ![Light](screenshots/images-light.png) | ![Sixteen colours](screenshots/images-16-colours.png) |

* **Jobs are processes of their own.** Quit, crash or lose the connection: they go on, and the next
  start says what ended meanwhile.
* **A container gets the real terminal.** Inside tmux a window of its own, else the deck steps aside and
  comes back with the exit status; Ctrl-C and Ctrl-Z stay in the container, pulls go on.
* **Idle costs nothing**: not a byte is written, no timer runs. Progress is drawn five times a second.
* **Lists and logs of any length**: only what is on the screen is read and drawn.
* **Copying works in tmux with default settings and over SSH**, and says which way it took.
* `sifdeck deck --readonly` for classrooms; `NO_COLOR`, sixteen colours and dark or light themes with
  contrast of at least 4.5:1; `sifdeck reset-tty` after a program that left the terminal in a mess.
* Settings are in `~/.config/sifdeck/config.toml`, above a site's `/etc/sifdeck/config.toml`;
  `sifdeck config --schema` describes them. A key is bound anew by its id (`sifdeck keys`):

```toml
theme = "sifdeck-light"
folders = ["/scratch/alice/images"]

[keys]
"images.run" = "enter"

[[commands]]                       # in the palette, ctrl+p
name = "Scan"
argv = ["trivy", "image", "--input", "{image}"]
view = "images"
```

A terminal that cannot show it (`TERM=dumb`, no tty) is told to use the command line, which does
everything that the deck does, line by line, also for screen readers.

### Beside others

Y: yes, ~: in part, -: no, a dot where it does not apply. Ours is what works today; the other columns
are from reading the code and the manuals of podman-tui, lazydocker, k9s, dive, posting and harlequin.

| | sifdeck | podman-tui | lazydocker | k9s | dive | posting | harlequin |
|---|---|---|---|---|---|---|---|
| Browse repositories and tags of a registry | Y | - | - | . | - | . | . |
| Logins: stored where, log in, log out | Y | ~ | - | . | - | . | . |
| Pull with progress for each layer, rate, time left | Y | - | - | . | - | . | . |
| Cancel, resume, retry a pull | Y | - | - | . | - | . | . |
| SIF and OCI-SIF: descriptors, header, history | Y | - | - | . | - | . | . |
| Files of an image | ~ list | ~ text | - | - | Y | . | . |
| Build with a live log | Y | Y | ~ | - | ~ | . | . |
| Log: follow, find, next error, save | Y | - | ~ | Y | . | . | . |
| Shell with a real terminal | Y | Y | Y | Y | - | . | . |
| Jobs go on meanwhile, and after quitting | Y | - | - | - | . | . | . |
| New tmux window when inside tmux | Y | - | - | - | - | - | - |
| Shows the command line that does the same | Y | - | ~ | ~ | - | ~ | - |
| Filter, sort by column | Y | ~ | ~ | Y | ~ | ~ | - |
| Marks and bulk actions | Y | - | ~ | Y | - | - | ~ |
| 10,000 rows without a pause | Y | . | . | Y | . | . | Y |
| Palette, help for where you are | Y | ~ | ~ | Y | ~ | Y | Y |
| Keys bound anew, clashes told | Y | - | - | ~ | ~ | Y | Y |
| Commands of your own | Y | - | Y | Y | - | ~ | ~ |
| Copy over SSH and in default tmux | Y | - | - | ~ | - | - | ~ |
| Deletes can be undone | Y | - | - | - | . | - | - |
| 16 colours, NO_COLOR | Y | - | Y | ~ | Y | ~ | ~ |
| Settings with schema and site file | Y | ~ | ~ | ~ | ~ | ~ | ~ |
| Complete command line over the same core | Y | . | - | - | ~ | - | Y |
| Embedded terminal pane | - | Y | - | - | - | . | . |
| Web mode | - | - | - | - | - | - | - |

### Keys

"""


def section() -> str:
    """Return the section, without the marks around it."""
    sheets = ("\n".join(keysheet.markdown(view)) for view in keysheet.TITLES if actions_of(view))
    return TEXT + "\n\n".join(sheets) + "\n"


def main() -> None:
    """Put the section between its marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{section()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
