"""The ``.snac`` file format and the ``snac`` command line."""
