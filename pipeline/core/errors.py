"""The errors of this package.

PipelineError
├── UsageError        an invalid option
├── InputError        a clip, picture or folder that cannot be read or written
│   ├── FolderInUse   another run is writing to the output folder
│   ├── SourceChanged the clip changed while it was processed
│   └── KeptByAnotherRun  segments of a run with other options are kept
├── ModelError        a checkpoint, a conversion or a device
├── InferenceError    the model failed or hung on a frame
├── EncodeError       a frame could not be encoded, or the output is wrong
├── WorkerDied        the child process died or was killed because it hung
└── Interrupted       the user stopped the run

Every message is one line that says what happened and what to do.
"""

import signal


class PipelineError(Exception):
    """Base class; the message is one line for the user.

    file, step, frame_index: where it happened, or None; the message begins with them.
    """

    file: str | None = None
    step: str | None = None
    frame_index: int | None = None

    def __str__(self) -> str:
        message = super().__str__()
        if self.step is not None:
            frame = "" if self.frame_index is None else f" of frame {self.frame_index}"
            message = f"{self.step}{frame} failed: {message}"
        return f"{self.file}: {message}" if self.file is not None else message


class UsageError(PipelineError):
    """An invalid option."""


class InputError(PipelineError):
    """A clip, picture or folder that cannot be read or written."""


class FolderInUse(InputError):
    """Another run is writing to the output folder."""


class SourceChanged(InputError):
    """The clip changed while it was processed."""


class KeptByAnotherRun(InputError):
    """Segments of a run with other options are kept, and may not be discarded."""


class ModelError(PipelineError):
    """A checkpoint, a conversion or a device that cannot be used."""


class InferenceError(PipelineError):
    """The model failed or hung on a frame."""


class EncodeError(PipelineError):
    """A frame could not be encoded, or the finished output is wrong."""


class WorkerDied(PipelineError):
    """The child process died, or hung and was killed."""


class Interrupted(PipelineError):
    """The user stopped the run, by the signal `signal_number`."""

    signal_number: int = signal.SIGINT


def located(error: Exception, step: str, frame_index: int) -> PipelineError:
    """The error with its step and frame, unless it already has them."""
    known = error if isinstance(error, PipelineError) else as_pipeline_error(error)
    if known.step is None:
        known.step = step
    if known.frame_index is None:
        known.frame_index = frame_index
    return known


def as_pipeline_error(error: BaseException) -> PipelineError:
    """An unexpected error as a PipelineError of one line, with that error as its cause."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        known: PipelineError = InputError(f"{where}{error.strerror}")
    else:
        kind = type(error).__name__
        known = PipelineError(f"unexpected {kind}: {error} (--debug shows where)")
    known.__cause__ = error
    return known


def reason_of(error: BaseException) -> str:
    """The last line of a library's message, which is where OpenVINO gives the reason."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
