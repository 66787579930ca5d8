"""Pure types and rules: no I/O, no framework; standard library and numpy only."""
