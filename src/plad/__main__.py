"""`python -m plad`."""

from plad.cli import main

if __name__ == "__main__":
    main()
