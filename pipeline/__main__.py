"""The command `pipeline`, also as `python -m pipeline`: ends in order from its first moment on."""

import signal
import sys

EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


def main() -> int:
    """Run the command that this process is; returns its exit code.

    A signal may also come in the tenth of a second in which modules are loaded.
    """
    # As an exception, so that a run that is told to end cleans up after itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        from pipeline import cli

        return cli.main()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
