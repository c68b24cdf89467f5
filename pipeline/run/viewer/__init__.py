"""The viewer: a page that plays a clip with its detections, and the data beside it."""
