"""The executors that process segments; supervision, journal and storage."""
