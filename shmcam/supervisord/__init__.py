"""supervisord with one change: our own programs are forked from it, with what they import already loaded."""
