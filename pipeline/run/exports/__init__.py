"""Detections of finished runs -> files that other tools read: one module per format."""
