"""Many clips with one command: finding them, processing them, reporting on all."""
