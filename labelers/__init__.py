"""Degrade pristine images, let networks look at the copies, decide which are useful."""
