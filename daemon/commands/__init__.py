"""What the commands do, one module a command; `daemon.cli` turns arguments into calls of these."""
