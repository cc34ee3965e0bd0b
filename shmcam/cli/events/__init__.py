"""Words of the command line about what is done upon events."""
