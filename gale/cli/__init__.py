"""The four programs: the only readers of arguments and environment, and the only printers."""
