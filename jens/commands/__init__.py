"""One file a command line tool: arguments, exit codes, what is printed."""
