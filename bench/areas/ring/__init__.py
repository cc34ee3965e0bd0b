"""The ring: alone, beside other ways to share frames, and growing."""
