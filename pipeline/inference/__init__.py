"""What runs a model, and how."""
