"""The errors a caller can meet.

PipelineError
├── UsageError        an option that cannot work, whatever the footage
├── InputError        a clip, picture or folder that cannot be read or written
│   ├── FolderInUse   another run is writing to the output folder
│   └── SourceChanged the clip changed while it was processed
├── ModelError        a checkpoint, a conversion or a device
├── InferenceError    the model failed, or did not answer, on a frame
├── EncodeError       a frame could not be encoded, or the output is not right
├── WorkerDied        the process that did the work died, or had to be killed
└── Interrupted       the user asked to stop

Every message is one line that says what is wrong and what to do about it.
"""

import signal


class PipelineError(Exception):
    """Anything this package raises on purpose; the message is one line for the user.

    file, step, frame_index: where it happened, where that is known; the message begins with it.
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
    """An option that cannot work, whatever the footage."""


class InputError(PipelineError):
    """A clip, picture or folder that cannot be read or written."""


class FolderInUse(InputError):
    """Another run is writing to the output folder."""


class SourceChanged(InputError):
    """The clip changed while it was processed."""


class ModelError(PipelineError):
    """A checkpoint, a conversion or a device that cannot be used."""


class InferenceError(PipelineError):
    """The model failed, or did not answer, on a frame."""


class EncodeError(PipelineError):
    """A frame could not be encoded, or the finished output is not right."""


class WorkerDied(PipelineError):
    """The process that did the work died, or did not go on and had to be killed."""


class Interrupted(PipelineError):
    """The user asked to stop; `signal_number` says by which signal."""

    signal_number: int = signal.SIGINT


def located(error: Exception, step: str, frame_index: int) -> PipelineError:
    """The error with the step and the frame it came from, unless it knows them already."""
    known = error if isinstance(error, PipelineError) else as_pipeline_error(error)
    if known.step is None:
        known.step = step
    if known.frame_index is None:
        known.frame_index = frame_index
    return known


def as_pipeline_error(error: BaseException) -> PipelineError:
    """What was not raised on purpose, as one line, with the error itself as the cause."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        known: PipelineError = InputError(f"{where}{error.strerror}")
    else:
        kind = type(error).__name__
        known = PipelineError(f"unexpected {kind}: {error} (--debug shows where)")
    known.__cause__ = error
    return known


def reason_of(error: BaseException) -> str:
    """The last line of a library's message: where OpenVINO says what was wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
