"""Bad command lines of all commands, as tables: what is wrong, what is typed, what the one line of the error holds."""
