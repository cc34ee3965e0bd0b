"""The process that kills what hangs, starts what supervisord gave up, and announces which processes run."""
