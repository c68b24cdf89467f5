"""The command `pipeline`, also as `python -m pipeline`: ends in order from its first moment on."""

import signal
import sys

EXIT_INTERRUPTED = 128 + signal.SIGINT
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the command that this process is; returns its exit code.

    A signal may also come in the tenth of a second in which modules are loaded.
    """
    # As an exception, so that a run that is told to end cleans up after itself.
    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # As nohup asks for.
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        from pipeline.cli import commands as cli

        return cli.main()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
