"""The parts of a process that all models share: owner threads, the device and its memory, locks, fork and exit."""
