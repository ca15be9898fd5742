"""The ``snac`` command line: one module a command; nothing else in the package imports it."""
