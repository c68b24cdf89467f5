"""Tracks of finished runs -> crossings of lines, visits to zones, and counts over time."""
