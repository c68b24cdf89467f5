"""How many machines for how much footage, as `pipeline plan` tells."""
