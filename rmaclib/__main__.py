"""python -m rmaclib, and the command rmac: the command line; torchrun starts it so."""


def main() -> None:
    """Entry point. Worker processes import this module again, so that what the commands need, torch above all, is
    imported here only when a command runs."""
    from rmaclib import cli

    cli.main()


if __name__ == "__main__":
    main()
