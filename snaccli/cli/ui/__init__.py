"""What the command line shows: lines, tables and progress."""
