"""From a checkpoint somewhere to an OpenVINO IR of the right input shape."""
