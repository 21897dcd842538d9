"""The parts of a process that all models share: owner threads, the device lock, fork and exit, the CPU's libraries."""
