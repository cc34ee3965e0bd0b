"""CONTRACT 1: the bytes of the ring; its one writer; its read-only readers."""
