"""Where segments are worked on, and what survives when that ends early."""
