"""The steps that every frame takes, one module for each, and the loop over them."""
