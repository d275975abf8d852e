"""`python -m vovcodec` is the `vov` command."""

from vovcodec.cli.app import main

if __name__ == "__main__":
    main()
