"""Values and services that know nothing of video or models."""
