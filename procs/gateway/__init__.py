"""The gateway: what shared memory says of signals, books and health, over HTTP. It reads, and no writer ever waits for it."""
