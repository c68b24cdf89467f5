"""A scene whose ground truth is known."""
