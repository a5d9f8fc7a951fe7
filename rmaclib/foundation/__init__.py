"""What every room stands on: errors, settings, files, output folders, worker processes; nothing of the paper."""
