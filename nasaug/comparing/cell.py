"""A cell's process: `python -m nasaug.comparing.cell PARENT COMMAND ...`, an ordinary command that
ends when the process that began it is gone.

Without this a study that is killed would leave its cells running, and the next one would find their
folders in use. Asking who the parent is works on every system that has parents.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from nasaug.__main__ import INTERRUPTED, run

SECONDS_BETWEEN_LOOKS = 0.5
# Commands that are not called as what they make.
CALLED = {"detect": ("detect", "train")}


def main() -> None:
    parent = int(sys.argv[1])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    command, *options = sys.argv[2:]
    sys.exit(run([*CALLED.get(command, (command,)), *options]))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(INTERRUPTED)  # checkpoints are written atomically: nothing is left in halves


if __name__ == "__main__":
    main()
