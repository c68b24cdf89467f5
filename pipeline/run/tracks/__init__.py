"""Which boxes of a clip are one thing: the tracks of all its detections."""
