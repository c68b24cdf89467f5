"""Faults made on purpose, in numbers: `make torture`."""
