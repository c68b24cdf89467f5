"""Many clips with one command: which they are, how each fares, and what tells of all."""
