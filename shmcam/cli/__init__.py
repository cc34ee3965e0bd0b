"""The `shmcam` command line and what belongs to it: console, slave, doctor, logs, completion."""
