"""Day, night and the exposure at night."""
