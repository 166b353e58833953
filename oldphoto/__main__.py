"""``python -m oldphoto``, and what the command ``oldphoto`` runs.

A worker imports the module that the program was started from again: this one, which costs it nothing.
"""


def main() -> None:
    """Run the command line."""
    from oldphoto.cli import main

    main()


if __name__ == "__main__":
    main()
