"""The command line: ``rmac``, or ``python -m rmaclib``, which is what torchrun starts."""


def main() -> None:
    """Run the command line.

    Worker processes import this module again: what the commands need is therefore imported here, not above.
    """
    from rmaclib import cli

    cli.main()


if __name__ == "__main__":
    main()
