"""One run, from options to finished files."""
