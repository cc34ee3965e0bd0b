"""What makes a program a polite child of supervisord: settings, logs, stop, startup."""
