"""One module a command: a click command named `command`, which imports torch only when run."""
