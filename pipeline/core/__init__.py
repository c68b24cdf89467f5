"""Values and services without video or models."""
