"""Authentication: the credentials, the check of each request, login and logout."""
