"""Started as ``python -I -S launch.py DESCRIPTOR``: finds our packages, then does the work.

A file of its own because a script is compiled at every start, a module only once.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from backend.runtime.launcher import main

if __name__ == "__main__":
    # Nothing is left to flush, and to take the interpreter apart would cost 3 ms.
    os._exit(main(int(sys.argv[1])))
