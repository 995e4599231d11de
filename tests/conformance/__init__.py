"""Every method against an independent, naive, obviously right implementation, on several seeds with ties, duplicates, tiny
classes and unequal spreads.
"""
