"""What a native SIF has in ``/.singularity.d``: the scripts that start it, in our own words.

SingularityCE and Apptainer start a native image through ``/.singularity.d/actions``; what
these scripts have to do is described with the format.  One thing is done otherwise: ENTRYPOINT
and CMD are passed on as they are, and never through the shell a second time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.oci.image import ImageConfig

FOLDER = ".singularity.d"

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_START = """#!/bin/sh
for script in /.singularity.d/env/*.sh; do
    if [ -f "$script" ]; then
        . "$script"
    fi
done
"""

ACTIONS = {
    "exec": _START + 'exec "$@"\n',
    "run": _START
    + """if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    script="/scif/apps/$SINGULARITY_APPNAME/scif/runscript"
    if [ ! -x "$script" ]; then
        echo "No runscript for contained app: $SINGULARITY_APPNAME" >&2
        exit 1
    fi
    exec "$script" "$@"
fi
if [ -x /.singularity.d/runscript ]; then
    exec /.singularity.d/runscript "$@"
fi
exec /bin/sh "$@"
""",
    "shell": _START
    + """if [ -n "${SINGULARITY_SHELL:-}" ] && [ -x "$SINGULARITY_SHELL" ]; then
    exec "$SINGULARITY_SHELL" "$@"
fi
if [ -x /bin/bash ]; then
    exec /bin/bash --norc "$@"
fi
exec /bin/sh "$@"
""",
    "start": _START
    + """kill -CONT 1
if [ -x /.singularity.d/startscript ]; then
    exec /.singularity.d/startscript "$@"
fi
""",
    "test": _START
    + """if [ -x /.singularity.d/test ]; then
    exec /.singularity.d/test "$@"
fi
exec true
""",
}

ENVIRONMENT = {
    "01-base.sh": "#!/bin/sh\n",
    "90-environment.sh": "#!/bin/sh\n",
    "95-apps.sh": """#!/bin/sh
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    SCIF_APPNAME=$SINGULARITY_APPNAME
    SCIF_APPROOT=/scif/apps/$SCIF_APPNAME
    SCIF_APPMETA=$SCIF_APPROOT/scif
    SCIF_DATA=/scif/data
    SCIF_APPDATA=$SCIF_DATA/$SCIF_APPNAME
    SCIF_APPINPUT=$SCIF_APPDATA/input
    SCIF_APPOUTPUT=$SCIF_APPDATA/output
    export SCIF_APPNAME SCIF_APPROOT SCIF_APPMETA SCIF_DATA
    export SCIF_APPDATA SCIF_APPINPUT SCIF_APPOUTPUT
    if [ -d "$SCIF_APPROOT/bin" ]; then
        PATH=$SCIF_APPROOT/bin:$PATH
        export PATH
    fi
    if [ -d "$SCIF_APPROOT/lib" ]; then
        LD_LIBRARY_PATH=$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export LD_LIBRARY_PATH
    fi
    if [ -f "$SCIF_APPMETA/env/01-base.sh" ]; then
        . "$SCIF_APPMETA/env/01-base.sh"
    fi
    if [ -f "$SCIF_APPMETA/env/90-environment.sh" ]; then
        . "$SCIF_APPMETA/env/90-environment.sh"
    fi
fi
""",
    "99-base.sh": """#!/bin/sh
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs
PS1='Singularity> '
export LD_LIBRARY_PATH PS1
""",
    "99-runtimevars.sh": """#!/bin/sh
if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then
    PATH=$SING_USER_DEFINED_PREPEND_PATH:$PATH
fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then
    PATH=$PATH:$SING_USER_DEFINED_APPEND_PATH
fi
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then
    PATH=$SING_USER_DEFINED_PATH
fi
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
""",
}
"""Sourced in the order of their names before anything is started."""

IMAGE_ENVIRONMENT = "10-docker2singularity.sh"


def image_environment(config: ImageConfig) -> str:
    """Return the script with the image's variables: PATH as it is, others unless they are set.

    Names that are no shell names are passed over, as no shell could set them.
    """
    lines = ["#!/bin/sh\n"]
    for entry in config.env:
        name, _, value = entry.partition("=")
        if not _NAME.fullmatch(name):
            continue
        assignment = f"{name}={quote(value)}"
        if name != "PATH":
            assignment = f'[ -n "${{{name}:-}}" ] || {assignment}'
        lines.append(f"{assignment}\nexport {name}\n")
    return "".join(lines)


def runscript(config: ImageConfig) -> str:
    """Return the script that starts ENTRYPOINT with its arguments, or with CMD without any."""
    lines = ["#!/bin/sh\n"]
    if config.cmd:
        words = " ".join(map(quote, config.cmd))
        lines.append(f'if [ "$#" -eq 0 ]; then\n    set -- {words}\nfi\n')
    if config.entrypoint:
        words = " ".join(map(quote, config.entrypoint))
        lines.append(f'set -- {words} "$@"\n')
    else:
        lines.append('if [ "$#" -eq 0 ]; then\n    set -- /bin/sh\nfi\n')
    lines.append('exec "$@"\n')
    return "".join(lines)


def quote(text: str) -> str:
    """Return one word for a shell, whatever it holds."""
    return "'" + text.replace("'", "'\\''") + "'"
