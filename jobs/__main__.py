"""The command `recjob`, and `python -m jobs`: Ctrl-C ends it quietly also while the rest is imported."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # until `signals.heed`; nothing was begun

from jobs.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
