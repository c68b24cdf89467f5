"""The errors a caller can meet.

PipelineError
├── UsageError        an option that cannot work, whatever the footage
├── InputError        a clip, picture or folder that cannot be read or written
├── ModelError        a checkpoint, a conversion or a device
├── InferenceError    the model failed, or did not answer, on a frame
├── EncodeError       a frame could not be encoded, or the output is not right
└── Interrupted       the user asked to stop

Every message is one line that says what is wrong and what to do about it.
"""


class PipelineError(Exception):
    """Anything this package raises on purpose; the message is one line for the user."""


class UsageError(PipelineError):
    """An option that cannot work, whatever the footage."""


class InputError(PipelineError):
    """A clip, picture or folder that cannot be read or written."""


class ModelError(PipelineError):
    """A checkpoint, a conversion or a device that cannot be used."""


class InferenceError(PipelineError):
    """The model failed, or did not answer, on a frame."""


class EncodeError(PipelineError):
    """A frame could not be encoded, or the finished output is not right."""


class Interrupted(PipelineError):
    """The user asked to stop."""


def reason_of(error: BaseException) -> str:
    """The last line of a library's message: where OpenVINO says what was wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
