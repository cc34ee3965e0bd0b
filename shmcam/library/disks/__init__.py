"""The disks on which the files lie: their free space, and whether they are mounted."""
