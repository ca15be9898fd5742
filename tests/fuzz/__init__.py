"""A fuzzer: changed files through the program's own entry points. ``python -m tests.fuzz --help``.

``mutate`` changes bytes and JSON; a module for each kind of file changes what only it has, repairs checksums
so that a change gets past them, and checks what must hold; ``watch`` runs cases in a process that may die.
"""
