"""python -m rmaclib: the command line; torchrun starts it so."""

from rmaclib.cli import main

main()
