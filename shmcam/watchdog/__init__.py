"""watchdog: kills what hangs, brings back what supervisord gave up, and tells everyone what goes up and down."""
