"""Every figure this project claims, as a ratio against a bound or a peer in the same run."""
