"""Stacks frames into one picture of 16 bits: rejection, alignment, dark frames, tone mapping."""
