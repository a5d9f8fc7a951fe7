"""The commands of rmac, in modules that are imported when one of theirs is asked for (rmaclib.cli)."""
