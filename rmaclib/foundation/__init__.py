"""What every room needs: errors, settings, files, output folders, worker processes. Nothing of the paper is here."""
