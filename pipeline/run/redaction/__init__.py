"""What is covered in each frame, computed over the detections of a whole clip."""
