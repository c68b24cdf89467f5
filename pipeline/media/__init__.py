"""Containers: open them within limits, read their times and shape, cut, mux."""
