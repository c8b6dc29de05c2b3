"""How long a test waits for something that must come."""

DEADLINE_S = 180  # reached only by a failing test, however busy the machine is
