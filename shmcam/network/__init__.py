"""What processes that talk to peers have in common: addresses, logins, and failures in words."""
