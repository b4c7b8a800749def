"""A labelling run as one page to read: tables -> numbers -> figures -> HTML."""
