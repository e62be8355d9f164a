"""The command line that we are, for whoever starts us again."""

from __future__ import annotations

import sys

OURSELVES = (sys.executable, "-P", "-c", "import sys, sifdeck; sys.exit(sifdeck.main())")
"""This program again, as a process of its own; ``-P`` keeps the user's folder off its path."""
