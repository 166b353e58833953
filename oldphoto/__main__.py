"""``python -m oldphoto``."""

from oldphoto.cli import main

if __name__ == "__main__":
    main()
