"""`python -m ksi_migrate`, for where the script is not on PATH."""

from ksi_migrate.cli import main

if __name__ == "__main__":
    main()
