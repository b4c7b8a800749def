"""Finds damaged regions of a car, and says what kind of damage they are and how severe."""
