"""capture/sources/synthetic."""
