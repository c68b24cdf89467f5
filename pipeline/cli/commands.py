"""Runs one command: a command line -> its exit code."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence

from pipeline.cli import json_lines
from pipeline.cli.parsers import COMMANDS, parse_arguments
from pipeline.cli.terminal import show_error, show_log, show_note
from pipeline.core.config import ProcessConfig
from pipeline.core.cores import limited_cores
from pipeline.core.errors import Interrupted, PipelineError, UsageError, as_pipeline_error
from pipeline.core.notes import collected_notes
from pipeline.core.options import declared

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_USE = 0, 1, 2
_EXIT_BY_SIGNAL = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Raises SystemExit if the options are not valid."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not json_lines.asked_for(words):
        return _run(words)
    with json_lines.written(words[0]) as lines:
        lines.exit_code = _run(words)
        return lines.exit_code


def _run(words: Sequence[str]) -> int:
    arguments = parse_arguments(words)
    try:
        with collected_notes() as notes, limited_cores(_cores(arguments)):
            COMMANDS[arguments.command].run(arguments)
        if arguments.command != "process":  # Its report contains them.
            for line in notes:
                show_note(line)
    except Interrupted as error:
        return _fail(arguments, error, _EXIT_BY_SIGNAL + error.signal_number)
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", _EXIT_BY_SIGNAL + signal.SIGINT)
    except SystemExit as error:  # By another signal: see __main__.
        return _fail(arguments, "interrupted", int(error.code or EXIT_DONE))
    except UsageError as error:
        return _fail(arguments, f"{error}; see pipeline {arguments.command} --help", EXIT_WRONG_USE)
    except PipelineError as error:
        return _fail(arguments, error, EXIT_FAILED)
    except Exception as error:
        return _fail(arguments, as_pipeline_error(error), EXIT_FAILED)
    return EXIT_DONE


def _cores(arguments: argparse.Namespace) -> int | None:
    """The limit on cores, before a library is loaded that starts threads for all of them."""
    if arguments.command == "plan":  # Those of a cluster.
        return None
    number: int | None = getattr(arguments, "cores", None)
    declared(ProcessConfig)["cores"].require_valid("cores", number)
    return number


def _fail(arguments: argparse.Namespace, reason: object, code: int) -> int:
    if arguments.debug:
        for line in traceback.format_exc().splitlines():
            show_log(line)
    show_error(" ".join(str(reason).split()))
    return code
