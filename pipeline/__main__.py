"""The command `pipeline`, also as `python -m pipeline`; handles signals from its start on."""

import signal
import sys

EXIT_INTERRUPTED = 128 + signal.SIGINT
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the command of this process; returns its exit code.

    Signals are also handled during the 0.1 s in which modules are imported.
    """
    # As an exception, so that a terminated run cleans up.
    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # Ignored under nohup.
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        from pipeline.cli import commands as cli

        return cli.main()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
