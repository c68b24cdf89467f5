"""A checkpoint -> an OpenVINO graph, and what belongs to its input and output."""
