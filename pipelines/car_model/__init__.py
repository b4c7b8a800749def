"""Says which make and model a car is, or how much of that it can tell."""
