"""Local stand-ins for the destinations: the other side of a sync, with a memory and a fault dial.

They are written from the vendors' documentation, not from our destinations, and share no code with them: a mistake
in how we read an answer must not be repeated by the one who gives it.
"""
