"""The command line: flags, messages, signals and the global settings of JAX."""
