"""HANS: reading the challenge set, the authors' metrics, and a generator of challenge sets of our own."""
