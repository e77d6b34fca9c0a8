"""The groups of the command line: each command parses, calls one function, prints its report."""
