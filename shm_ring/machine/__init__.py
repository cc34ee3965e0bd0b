"""What differs between machines: fences and futex of the processor, and the memory that there is."""
