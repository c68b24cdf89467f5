"""A pool of actors on the nodes of a Ray cluster, of which any may be lost or join at any time."""
