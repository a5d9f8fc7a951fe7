"""The commands of rmac, a module each, imported when the command is asked for (rmaclib.cli), and what they share."""
