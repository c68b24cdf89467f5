"""Clips, edit decision lists and timelines of what was found."""
