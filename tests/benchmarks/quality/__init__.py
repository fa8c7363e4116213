"""Whole training runs, ours and others', each a process of its own, and what they reached."""
